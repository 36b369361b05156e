"""Judges deliveries by PyPI's standardwebhooks: a JSON line for each request, and one back: true, or why not.

    in   {"headers", "body" (base64), "secret", "at"? (seconds: the clock of then)}
    out  {"standardwebhooks"}
"""

import base64
import datetime
import json
import sys

import standardwebhooks.webhooks as library


class Then(datetime.datetime):
    """A clock that stands still, for the example of the standard."""

    at = 0.0

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(cls.at, tz)


def judged(request):
    library.datetime = datetime.datetime
    if "at" in request:
        Then.at = float(request["at"])
        library.datetime = Then
    try:
        body = base64.b64decode(request["body"])
        library.Webhook(request["secret"]).verify(body, request["headers"], json_parse=False)
        return True
    except Exception as error:  # whatever it is, it is the verdict
        return f"{type(error).__name__}: {error}"


for line in sys.stdin:
    print(json.dumps({"standardwebhooks": judged(json.loads(line))}), flush=True)
