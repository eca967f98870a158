"""What a user does, each verb a straight list of calls."""
