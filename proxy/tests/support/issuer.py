"""oidc-provider-mock behind HTTPS on a free port, told by lines of standard input what to do.

  login SUBJECT CLIENT   prints the ID token of an authorization code flow
  rotate                 signs with another key from now on
  count                  prints how often the keys were asked for
  stop                   stops listening

Each command is answered by one line. The first line says the port.
"""

import sys
from urllib.parse import parse_qs, urlsplit

import flask
import threading
import werkzeug.serving
from oidc_provider_mock import app

application = app()
seen = {"jwks": 0, "storage": None}


@application.before_request
def look():
    seen["storage"] = flask.g.oidc_provider_mock_storage
    if flask.request.path == "/jwks" and flask.request.environ.get("SERVER_SOFTWARE", "").startswith("Werkzeug"):
        seen["jwks"] += 1


class Quiet(werkzeug.serving.WSGIRequestHandler):
    def log(self, *_):
        pass


server = werkzeug.serving.make_server(
    "127.0.0.1", 0, application, threaded=True, ssl_context=(sys.argv[1], sys.argv[2]), request_handler=Quiet
)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"https://localhost:{server.server_port}"


def login(subject, client):
    browser = application.test_client()
    there = {"client_id": client, "redirect_uri": "https://app.test/", "response_type": "code", "scope": "openid email"}
    answer = browser.post("/oauth2/authorize", base_url=base, query_string=there, data={"sub": subject})
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": "https://app.test/"}
    answer = browser.post("/oauth2/token", base_url=base, data=form, auth=(client, "secret"))
    return answer.get_json()["id_token"]


print(server.server_port, flush=True)
for line in sys.stdin:
    command, *words = line.split()
    if command == "login":
        print(login(*words), flush=True)
    elif command == "rotate":
        storage = seen["storage"]
        storage.jwk = type(storage.jwk).generate_key(is_private=True)
        print("rotated", flush=True)
    elif command == "count":
        print(seen["jwks"], flush=True)
    elif command == "stop":
        server.shutdown()
        server.server_close()
        print("stopped", flush=True)
