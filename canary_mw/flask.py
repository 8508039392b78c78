"""Flask: `canary_mw.flask.init_app(app, rules="rules.yaml")`."""

from canary_mw.middleware.frameworks.flask import init_app as init_app
