"""Segment a volume on a Dask cluster: here one on this machine, with two worker processes.

    pip install "evenslice[dask]"
    python examples/cluster.py MODEL VOLUME OUT.zarr [--workers 2]

On a batch system replace LocalCluster by dask_jobqueue.SLURMCluster(...), or start `dask scheduler`
and `dask worker` yourself and give the address: evenslice segment MODEL VOLUME OUT --scheduler
tcp://HOST:8786
"""

import argparse

from distributed import LocalCluster

from evenslice import segment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("volume")
    parser.add_argument("out")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with LocalCluster(
        n_workers=given.workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        done = segment(
            given.model,
            given.volume,
            given.out,
            scheduler=cluster.scheduler_address,
            instances="components",
        )
        print(f"{given.workers} workers, {done.objects} objects, written to {given.out}")


if __name__ == "__main__":
    main()
