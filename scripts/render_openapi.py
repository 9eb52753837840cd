"""Print the OpenAPI document of this checkout."""

import json
import sys

from pixyproxy.core.settings import Settings
from pixyproxy.web.app import create_app

json.dump(create_app(Settings()).openapi(), sys.stdout, indent=2, ensure_ascii=False)
sys.stdout.write("\n")
