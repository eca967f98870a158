"""The stem: found, adapted, tied. The only place that touches slot weights."""
