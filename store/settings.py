"""Settings of GPT Store, all from the environment with working defaults; `.env.example` explains each."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
import structlog
from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _
from environs import Env

from store import secret_key
from store.loopback import is_loopback

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()
env.read_env(str(BASE_DIR / ".env"), recurse=False)

VAR_DIR = Path(env.str("VAR_DIR", str(BASE_DIR / "var"))).resolve()
VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # for the store's own system user: the database is in it

DEBUG = env.bool("DEBUG", False)
SECRET_KEY = env.str("SECRET_KEY", "") or secret_key.kept_in(VAR_DIR)
HOST = env.str("HOST", "127.0.0.1")
PORT = env.int("PORT", 8000)
SITE_URL = (env.str("SITE_URL", "") or f"http://127.0.0.1:{PORT}").rstrip("/")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", [])
HTTPS = env.bool("HTTPS", SITE_URL.startswith("https://"))
# `manage.py up --prepare` imports a small real model and seeds demo publishers; not on a store that others reach, unless asked to
DEMO = env.bool("DEMO", not HTTPS and is_loopback(urlsplit(SITE_URL).hostname or ""))
DEMO_FINETUNE = env.bool("DEMO_FINETUNE", True)  # whether seeding the demo starts a fine-tune to watch
DEMO_GPTS = env.int("DEMO_GPTS", 100)  # how many of the demo's prompt GPTs are listed, at most

# ---------------------------------------------------------------- applications

INSTALLED_APPS = [
    "store.supervision",
    "store.accounts",
    "store.notifications",
    "store.catalog",
    "store.billing",
    "store.generation",
    "store.jobs",
    "store.ratings",
    "store.moderation",
    "store.playground",
    "store.pages",
    "store.api",
    "store.batches",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "rest_framework",
    "drf_spectacular",
    "django_structlog",
]

MIDDLEWARE = [
    "store.request_ids.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "store.static_files.StaticFilesMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "store.refusals.RefusalMiddleware",
    "store.pages.moved.MovedMiddleware",
]

ROOT_URLCONF = "store.urls"
ASGI_APPLICATION = "store.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "store.pages.context.chrome",
            ],
            "builtins": ["store.pages.templatetags.ui"],
        },
    }
]

# ---------------------------------------------------------------- database, broker, cache

DATABASES = {"default": dj_database_url.parse(env.str("DATABASE_URL", "") or f"sqlite:///{VAR_DIR / 'store.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a write lock at BEGIN: no upgrade deadlocks
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-20000; PRAGMA temp_store=MEMORY;",
    }
else:
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

VALKEY_PORT = env.int("VALKEY_PORT", 7379)  # of the embedded server
EMBEDDED_VALKEY = not env.str("REDIS_URL", "")
VALKEY_PASSWORDS = {user: secret_key.derived(SECRET_KEY, f"valkey:{user}") for user in ("store", "worker")}  # of its users


def _embedded_valkey(user: str) -> str:
    return f"redis://{user}:{VALKEY_PASSWORDS[user]}@127.0.0.1:{VALKEY_PORT}/0"


REDIS_URL = env.str("REDIS_URL", "") or _embedded_valkey("store")
BROKER_URL = env.str("BROKER_URL", "") or REDIS_URL
# As the workers that `manage.py up` starts reach the same two, as users with fewer rights.
WORKER_REDIS_URL = env.str("WORKER_REDIS_URL", "") or (_embedded_valkey("worker") if EMBEDDED_VALKEY else REDIS_URL)
WORKER_BROKER_URL = env.str("WORKER_BROKER_URL", "") or env.str("BROKER_URL", "") or WORKER_REDIS_URL
ARTIFACT_URL = env.str("ARTIFACT_URL", "") or (VAR_DIR / "artifacts").as_uri()

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
        "VERSION": 2,  # goes up with the form of the values, which is JSON in 2
        "OPTIONS": {"serializer": "store.cache.JSONSerializer"},
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

# ---------------------------------------------------------------- people

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher", "django.contrib.auth.hashers.PBKDF2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "pages:home"
ACCOUNT_LOGOUT_REDIRECT_URL = "pages:home"
ACCOUNT_ADAPTER = "store.accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"login": "store.accounts.forms.SignInForm"}
ACCOUNT_LOGIN_METHODS = {"email", "username"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = env.str("EMAIL_VERIFICATION", "optional")  # or "mandatory"
ACCOUNT_UNIQUE_EMAIL = True
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_CONFIRM_EMAIL_ON_GET = False
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_USERNAME_MIN_LENGTH = 3
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[GPT Store] "
ACCOUNT_EMAIL_NOTIFICATIONS = True  # of changes to how the account is protected
ACCOUNT_RATE_LIMITS: dict[str, str] = {}  # allauth's own defaults
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes", "webauthn"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "GPT Store"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not HTTPS

EMAIL_BACKEND = env.str("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
EMAIL_FILE_PATH = env.str("EMAIL_FILE_PATH", "") or str(VAR_DIR / "mail")  # of the file-based backend
EMAIL_HOST = env.str("EMAIL_HOST", "localhost")
EMAIL_PORT = env.int("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.str("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.bool("EMAIL_USE_TLS", False)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "GPT Store <store@localhost>")

# ---------------------------------------------------------------- language, time, files

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "store" / "locale"]
FORMAT_MODULE_PATH = ["store.formats"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", "UTC")

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if env.bool("PLAIN_STATIC", False)
        else "store.static_files.BundledStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG or env.bool("PLAIN_STATIC", False)

# ---------------------------------------------------------------- limits, all bytes or counts

MAX_BODY_BYTES = env.int("MAX_BODY_BYTES", 2 * 1024 * 1024)
MAX_UPLOAD_BYTES = env.int("MAX_UPLOAD_BYTES", 64 * 1024 * 1024)  # one training file
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
MAX_PROMPT_CHARS = env.int("MAX_PROMPT_CHARS", 32_000)
MAX_COMPLETION_TOKENS = env.int("MAX_COMPLETION_TOKENS", 2048)
MAX_INFLIGHT_PER_BASE = env.int("MAX_INFLIGHT_PER_BASE", 64)
GENERATION_TIMEOUT_S = env.int("GENERATION_TIMEOUT_S", 300)
VISITOR_TRIES_PER_DAY = env.int("VISITOR_TRIES_PER_DAY", 30)
VISITOR_TRIES_PER_NETWORK = env.int("VISITOR_TRIES_PER_NETWORK", 300)  # a day, of all visitors from one network address
SHARES_PER_DAY = env.int("SHARES_PER_DAY", 50)  # conversations that one person shares by link
ARENA_BATTLES_PER_DAY = env.int("ARENA_BATTLES_PER_DAY", 100)  # of one person
ARENA_LEAST_CONTENDERS = env.int("ARENA_LEAST_CONTENDERS", 4)  # that could answer a question: with fewer its asker knows the two
REQUESTS_PER_MINUTE = env.int("REQUESTS_PER_MINUTE", 60)  # generations per person and minute
FEEDBACK_LEAST_PEOPLE = env.int("FEEDBACK_LEAST_PEOPLE", 3)  # whose feedback a publisher is shown texts of, at least
FIGURE_MODEL = env.str("FIGURE_MODEL", "")  # whose attention is shown to readers; empty: the free weights used most
JOBS_PER_PUBLISHER = env.int("JOBS_PER_PUBLISHER", 2)  # running at once
FINETUNES_PER_PERSON = env.int("FINETUNES_PER_PERSON", 10)  # waiting, queued or running at once
UPLOADED_BYTES_PER_PUBLISHER = env.int("UPLOADED_BYTES_PER_PUBLISHER", 1024**3)  # of all its training files together
MODEL_FILE_BYTES = env.int("MODEL_FILE_BYTES", 2 * 1024**3)  # one file of weights that a publisher brings
MODEL_BYTES_PER_PUBLISHER = env.int("MODEL_BYTES_PER_PUBLISHER", 8 * 1024**3)  # of all its files that are no version yet
UNREFERENCED_KEPT_HOURS = env.float("UNREFERENCED_KEPT_HOURS", 48)  # an object of the artifact store that nothing refers to
MAX_BATCH_LINES = env.int("MAX_BATCH_LINES", 10_000)  # requests of one batch
BATCHES_PER_PERSON = env.int("BATCHES_PER_PERSON", 10)  # under way at once
BATCH_SHARDS_PER_PERSON = env.int("BATCH_SHARDS_PER_PERSON", 4)  # of up to 100 requests, being answered at once
EVALUATIONS_OF_PRICED_PER_DAY = env.int("EVALUATIONS_OF_PRICED_PER_DAY", 5)  # begun by a publisher, of what others ask a price for
MAX_PARAMETERS_TRAINED_IN_FULL = env.int("MAX_PARAMETERS_TRAINED_IN_FULL", 200_000_000)  # of a base; an adapter may have any
FINETUNE_PRICE_MICRO_PER_STEP = env.int("FINETUNE_PRICE_MICRO_PER_STEP", 0)
PLATFORM_SHARE_PERCENT = env.int("PLATFORM_SHARE_PERCENT", 20)
ANCESTOR_SHARE_PERCENT = env.int("ANCESTOR_SHARE_PERCENT", 10)  # of what is left, for each other publisher in the lineage

# ---------------------------------------------------------------- security

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_SSL_REDIRECT = HTTPS and env.bool("SSL_REDIRECT", True)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_PROXY", False) else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
CSRF_FAILURE_VIEW = "store.pages.errors.csrf_failure"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],  # the QR code of a second factor is a data URL
        "font-src": [SELF],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
PERMISSIONS_POLICY: dict[str, list[str]] = {
    "camera": [],
    "geolocation": [],
    "microphone": [],
    "payment": [],
    "usb": [],
    "publickey-credentials-get": ["self"],
    "publickey-credentials-create": ["self"],
}

# ---------------------------------------------------------------- API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "store.api.authentication.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "store.api.errors.exception_response",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "GPT Store API",
    "DESCRIPTION": "Chat completions with every listed GPT, in the protocol of the OpenAI clients.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "",
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "store.api.reference.plain_strings"],
}

# ---------------------------------------------------------------- logs

DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True  # checked by store.request_ids, which makes one when none or a bad one came
METRICS_TOKEN = env.str("METRICS_TOKEN", "")
LOG_JSON = env.bool("LOG_JSON", False)
_PROCESSORS: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]
structlog.configure(
    processors=[*_PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _PROCESSORS,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(
                    [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
                    if LOG_JSON
                    else [
                        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
                    ]  # no local values in logs
                ),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {
        "uvicorn.access": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},  # else a line for every task received, and one for every one done
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "django_structlog": {"level": env.str("REQUEST_LOG_LEVEL", "WARNING")},
    },
}
