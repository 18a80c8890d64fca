"""Asks an MLflow store where a run's folder is: python -m mmnet.track.find <run id>.

A process of its own, because importing mlflow takes seconds and megabytes. The address
comes from the environment; the answer is one JSON object on standard output.
"""

import json
import os
import sys

from mmnet.errors import UserError
from mmnet.track.ship import limit_mlflow
from mmnet.track.state import URI


def main() -> None:
    limit_mlflow()
    from mmnet.track.mlflow_store import find_folder

    try:
        print(json.dumps({"folder": find_folder(sys.argv[1], os.environ[URI])}))
    except UserError as error:
        print(json.dumps({"error": str(error)}))


if __name__ == "__main__":
    main()
