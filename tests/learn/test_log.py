from evenslice.learn.log import OFTEN, Log

ROWS = [(1, 0.5, 1e-3, None), (2, 1 / 3, 2e-3, 0.25), (3, 0.1, 1e-9, None), (4, 0.0, 0.0, 1.0)]
TEXT = "steps,loss,lr,dice\n1,0.5,0.001,\n2,0.333333333,0.002,0.25\n3,0.1,1e-09,\n4,0,0,1\n"


def write(path, rows, done=0):
    log = Log(path, done)
    for steps, loss, rate, dice in rows:
        log.step(steps, loss, rate)
        if dice is not None:
            log.look(dice)
    return log


def test_a_row_a_step_and_a_dice_where_it_was_looked(tmp_path):
    write(tmp_path / "log.csv", ROWS)
    assert (tmp_path / "log.csv").read_text() == TEXT


def test_what_a_killed_run_had_not_kept_is_dropped(tmp_path):
    path = tmp_path / "log.csv"
    for left in (
        TEXT,
        TEXT[:-3],
        TEXT.replace("\n4,0", "\n40,0"),
        TEXT[: TEXT.index("\n3") + 2],
        TEXT[:60],
    ):
        path.write_text(left)
        write(path, ROWS[2:], done=2)
        assert path.read_text() == TEXT, left


def test_rows_are_written_now_and_then_before_a_look(tmp_path):
    log = write(tmp_path / "log.csv", [(i, 0.5, 0.1, None) for i in range(1, 2 * OFTEN + 2)])
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + 2 * OFTEN
    log.look(None)
    assert (tmp_path / "log.csv").read_text().endswith(f"\n{2 * OFTEN + 1},0.5,0.1,\n")


def test_a_new_run_begins_a_new_log(tmp_path):
    (tmp_path / "log.csv").write_text("old")
    Log(tmp_path / "log.csv", 0)
    assert (tmp_path / "log.csv").read_text() == "steps,loss,lr,dice\n"
