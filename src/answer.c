/*-------------------------------------------------------------------------
 * answer.c
 *		From a request's outcome to a pair of tokens, or to an error.
 *
 * It knows what SignalWire's answers mean, and how failures look in
 * PostgreSQL.
 *
 * 1. sgt_describe_outcome() alone turns an outcome into an error.
 * 2. Text from outside reaches a message only through sgt_clean(), which
 *    blanks secrets; no part of a body with tokens does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "answer.h"
#include "messages.h"

#define JSON_TYPE		"application/json"

/*
 * Ten errors with four members of 4 kB each are 160 kB.  json-c can need 300
 * times as much memory as the text.
 */
#define MAX_REFUSAL_LENGTH	(256 * 1024)

static bool is_json(const char *content_type);
static void describe_status(const Call *call, const Outcome *outcome,
							CallError *error);
static void describe_refusal(const Call *call, const Outcome *outcome,
							 CallError *error);
static void describe_suspension(const BreakerState *state, CallError *error);
static void describe_timeout(const Call *call, const Outcome *outcome,
							 CallError *error);
static void describe_failure(const Call *call, const Outcome *outcome,
							 int sqlstate, const char *message,
							 CallError *error);
static void add_check_hint(const Call *call, CallError *error);
static char *from_utf8(const char *str);

/*
 * Fills in the pair, or else the error, in the current memory context.
 */
bool
sgt_judge_outcome(const Call *call, const Outcome *outcome, TokenPair *pair,
				  CallError *error)
{
	const char *problem;

	if (outcome->result != ATTEMPT_ANSWERED || outcome->status != SUCCESS_STATUS)
	{
		sgt_describe_outcome(call, outcome, error);
		return false;
	}

	memset(pair, 0, sizeof(*pair));
	if (!is_json(outcome->content_type))
		problem = gettext_noop("The content type is not \"application/json\".");
	else
	{
		switch (sgt_read_token_pair(outcome->body, outcome->body_length,
									sgt_alloc_or_null, pair, &problem))
		{
			case CODEC_OK:
				return true;
			case CODEC_NO_MEMORY:
				sgt_raise_out_of_memory();
			default:
				break;
		}
	}
	sgt_set_error(error, ERRCODE_PROTOCOL_VIOLATION,
				  "response from SignalWire is not valid");
	error->detail = pstrdup(_(problem));
	add_check_hint(call, error);
	return false;
}

/* The letter case does not matter, and parameters may follow. */
static bool
is_json(const char *content_type)
{
	size_t		length = strlen(JSON_TYPE);

	return content_type != NULL &&
		pg_strncasecmp(content_type, JSON_TYPE, length) == 0 &&
		strchr("; \t", content_type[length]) != NULL;
}

/*
 * The one place that decides what a failure looks like: its SQLSTATE, message,
 * DETAIL and HINT.
 */
void
sgt_describe_outcome(const Call *call, const Outcome *outcome,
					 CallError *error)
{
	switch (outcome->result)
	{
		case ATTEMPT_ANSWERED:
			describe_status(call, outcome, error);
			break;
		case ATTEMPT_MALFORMED:
			describe_failure(call, outcome, ERRCODE_PROTOCOL_VIOLATION,
							 "response from SignalWire is not valid", error);
			add_check_hint(call, error);
			break;
		case ATTEMPT_NOT_CONNECTED:
		case ATTEMPT_BAD_CERTIFICATE:
		case ATTEMPT_NO_DESCRIPTOR:
			describe_failure(call, outcome,
							 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "could not connect to SignalWire", error);
			if (outcome->result == ATTEMPT_BAD_CERTIFICATE)
				error->hint = pstrdup(_("The server's certificate must be valid for the host and issued by an authority that is trusted: one of the system's, or of the file in \"sw_guest_token.ca_file\"."));
			if (outcome->result == ATTEMPT_NO_DESCRIPTOR)
			{
				error->detail = pstrdup(_("No file descriptor is left."));
				error->hint = pstrdup(_("Increase \"max_files_per_process\" or the operating system's limit."));
			}
			add_check_hint(call, error);
			break;
		case ATTEMPT_NO_LOOK_UP:
			sgt_set_error(error,
						  ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
						  "could not connect to SignalWire");
			error->detail = pstrdup(_("Too many abandoned look-ups of host names are still running."));
			error->hint = pstrdup(_("Check that the name servers answer within \"sw_guest_token.connect_timeout\"."));
			add_check_hint(call, error);
			break;
		case ATTEMPT_CONNECT_TIMED_OUT:
		case ATTEMPT_TIMED_OUT:
			describe_timeout(call, outcome, error);
			add_check_hint(call, error);
			break;
		case ATTEMPT_BROKEN:
			describe_failure(call, outcome, ERRCODE_CONNECTION_FAILURE,
							 "connection to SignalWire broke before the response was complete",
							 error);
			break;
		case ATTEMPT_BAD_CA_FILE:
			describe_failure(call, outcome,
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "certificate authorities could not be loaded",
							 error);
			error->hint = pstrdup(_("Check the parameter \"sw_guest_token.ca_file\"; if it is empty, install the system's certificate authorities."));
			break;
		case ATTEMPT_BAD_URL:
			describe_failure(call, outcome,
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "the URL of the server or of the proxy cannot be used",
							 error);
			error->hint = pstrdup(_("Check the parameters \"sw_guest_token.base_url\" and \"sw_guest_token.proxy\"."));
			break;
		case ATTEMPT_ENGINE_FAILED:
			describe_failure(call, outcome, ERRCODE_INSUFFICIENT_RESOURCES,
							 "libcurl is out of memory or descriptors", error);
			break;
		case ATTEMPT_SILENT:
			sgt_set_error(error, ERRCODE_CONNECTION_FAILURE,
						  "request to SignalWire timed out");
			error->detail = pstrdup(_("No session has had an answer for a while, and requests are suspended."));
			add_check_hint(call, error);
			break;
		case ATTEMPT_SUSPENDED:
			describe_suspension(&outcome->suspension, error);
			break;
		case ATTEMPT_CROWDED:
			sgt_set_error(error, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						  "too many sessions wait for SignalWire");
			error->detail = psprintf(_("SignalWire is slow, and \"sw_guest_token.max_sessions\" (%d) sessions wait for it."),
									 call->limits.max_sessions);
			error->hint = pstrdup(_("Try again later."));
			break;
		case ATTEMPT_OVER_BUDGET:
			sgt_set_error(error, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						  "too many tokens requested in a minute");
			error->detail = psprintf(_("\"sw_guest_token.tokens_per_minute\" is %d."),
									 call->limits.tokens_per_minute);
			error->hint = pstrdup(_("Try again later."));
			break;
		case ATTEMPT_NO_MEMORY:
		case ATTEMPT_ABANDONED: /* has no outcome of its own */
			sgt_raise_out_of_memory();
	}
}

static void
describe_suspension(const BreakerState *state, CallError *error)
{
	sgt_set_error(error, state->by_limit ?
				  ERRCODE_CONFIGURATION_LIMIT_EXCEEDED : ERRCODE_SYSTEM_ERROR,
				  "requests to SignalWire are suspended");
	error->detail = psprintf(_("%s  The next probe is due in %.1f s."),
							 sgt_describe_cause(state),
							 Max(state->probe_in_us, 0) / 1000000.0);
	error->hint = pstrdup(_("Try again later."));
}

static void
describe_status(const Call *call, const Outcome *outcome,
				CallError *error)
{
	int			status = outcome->status;
	char	   *excerpt = NULL;

	switch (status)
	{
		case 400:
		case 422:
			sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
						  "SignalWire rejected the request");
			break;
		case 401:
			sgt_set_error(error, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
						  "SignalWire did not accept the credentials");
			error->hint = pstrdup(_("Check the space, the project, and the API token: it needs one of the scopes Voice, Messaging, Fax and Video."));
			add_check_hint(call, error);
			break;
		case 403:
			sgt_set_error(error, ERRCODE_INSUFFICIENT_PRIVILEGE,
						  "SignalWire denied the request");
			error->hint = pstrdup(_("The API token lacks a required scope."));
			break;
		case 404:
			sgt_set_error(error, ERRCODE_UNDEFINED_OBJECT,
						  "SignalWire found nothing at the URL of the request");
			error->hint = pstrdup(_("Check the parameter \"sw_guest_token.space_name\" or \"sw_guest_token.base_url\"."));
			break;
		case 429:
			sgt_set_error(error, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						  "SignalWire limited the rate of requests");
			break;
		default:
			if (status >= 500 && status <= 599)
			{
				sgt_set_error(error, ERRCODE_SYSTEM_ERROR,
							  "SignalWire failed to process the request");
				break;
			}
			/* without a tunnel the proxy answers in the server's place */
			if (status == 407 && call->target->proxy)
				sgt_set_error(error,
							  ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							  "could not connect to SignalWire");
			else
				sgt_set_error(error, ERRCODE_PROTOCOL_VIOLATION,
							  "response from SignalWire has an unexpected status");
			add_check_hint(call, error);
			break;
	}

	if (status == 422)
		describe_refusal(call, outcome, error);
	if (error->detail)
		return;

	/* the body of a 2xx may hold tokens */
	if (status / 100 != 2)
		excerpt = sgt_show_text(&call->secrets, outcome->body, outcome->body_length);
	if (excerpt && excerpt[0])
		error->detail = psprintf(_("The status was %d in attempt %d: %s"),
								 status, outcome->n_attempts, excerpt);
	else
		error->detail = psprintf(_("The status was %d in attempt %d."),
								 status, outcome->n_attempts);
}

/*
 * A 422 says in words what is wrong.  If its body has another shape, or is
 * too long for that, the error stays as it is.
 */
static void
describe_refusal(const Call *call, const Outcome *outcome,
				 CallError *error)
{
	ApiErrors	errors;

	if (outcome->body_length > MAX_REFUSAL_LENGTH)
		return;
	switch (sgt_read_api_errors(outcome->body, outcome->body_length,
								&call->secrets, sgt_alloc_or_null, &errors))
	{
		case CODEC_OK:
			if (errors.message[0])
				error->message = psprintf("%s: %s", error->message,
										  from_utf8(errors.message));
			if (errors.details[0])
				error->detail = from_utf8(errors.details);
			if (errors.url)
				error->hint = psprintf(_("See %s."), from_utf8(errors.url));
			break;
		case CODEC_NO_MEMORY:
			sgt_raise_out_of_memory();
		default:
			break;
	}
}

static void
describe_timeout(const Call *call, const Outcome *outcome,
				 CallError *error)
{
	const Limits *limits = &call->limits;
	bool		connecting = outcome->result == ATTEMPT_CONNECT_TIMED_OUT;
	char	   *attempts;
	char	   *status;

	/* translator: completes "after %s" */
	attempts = psprintf(dngettext(TEXTDOMAIN, "%d attempt", "%d attempts",
								  outcome->n_attempts), outcome->n_attempts);
	status = outcome->status == 0 ? pstrdup(_("no status was received")) :
		psprintf(_("the last status was %d"), outcome->status);

	sgt_set_error(error, ERRCODE_CONNECTION_FAILURE,
				  "request to SignalWire timed out");
	/* translator: "while" what, after how many attempts; the last status */
	error->detail = psprintf(_("\"sw_guest_token.%s\" (%d ms) ran out while %s, after %s; %s."),
							 connecting ? "connect_timeout" : "timeout",
							 connecting ? limits->connect_timeout_ms :
							 limits->timeout_ms,
							 _(outcome->phase), attempts, status);
}

/*
 * A failure that only libcurl can explain further.
 */
static void
describe_failure(const Call *call, const Outcome *outcome, int sqlstate,
				 const char *message, CallError *error)
{
	char	   *reason = sgt_show_text(&call->secrets, outcome->reason,
									   strlen(outcome->reason));
	size_t		length = strlen(reason);

	if (length > 0 && reason[length - 1] == '.')
		reason[length - 1] = '\0';
	sgt_set_error(error, sqlstate, "%s", _(message));

	/* attempt.c's reasons are in the catalog, libcurl's are not */
	error->detail = length > 0 ?
		psprintf(_("Attempt %d: %s."), outcome->n_attempts, _(reason)) :
		psprintf(_("Attempt %d failed."), outcome->n_attempts);
}

/*
 * Where the message cannot name the cause, sw_guest_token_check() can.  The
 * HINT says so after everything else.
 */
static void
add_check_hint(const Call *call, CallError *error)
{
	const char *hint = _("Run \"SELECT * FROM sw_guest_token_check()\" to see which step fails.");

	if (call->is_check)
		return;
	error->hint = error->hint ? psprintf("%s  %s", error->hint, hint) :
		pstrdup(hint);
}

/*
 * Text from outside, made fit for a message.
 */
char	   *
sgt_show_text(const SecretList *secrets, const char *str, size_t length)
{
	char		shown[SGT_SHOWN_SIZE];

	sgt_clean(shown, str, length, secrets);
	return from_utf8(shown);
}

/*
 * Converts to the database's encoding; a character that it lacks becomes "?".
 */
static char *
from_utf8(const char *str)
{
	int			encoding = GetDatabaseEncoding();
	int			length = strlen(str);
	StringInfoData result;
	unsigned char *buffer;
	int			size = length * MAX_CONVERSION_GROWTH + 1;
	Oid			proc;

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pstrdup(str);

	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	buffer = palloc(size);
	initStringInfo(&result);
	while (length > 0)
	{
		int			done = 0;

		if (OidIsValid(proc))
		{
			buffer[0] = '\0';
			done = pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding,
												 (unsigned char *) str, length,
												 buffer, size, true);
			appendStringInfoString(&result, (char *) buffer);
		}
		if (done < length)
		{
			appendStringInfoChar(&result, '?');
			done += (int) sgt_utf8_length((const unsigned char *) str + done,
										  length - done);
		}
		str += done;
		length -= done;
	}
	pfree(buffer);
	return result.data;
}
