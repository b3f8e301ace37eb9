/*-------------------------------------------------------------------------
 * tokens.c
 *		Guest tokens: from checked arguments to the API's answer.
 *
 * Knows SignalWire's API and PostgreSQL's errors; knows nothing of function
 * calls or rows, which are for functions.c and trigger.c, nor of how requests
 * travel, which is for http.c.
 *
 * 1. Arguments are checked before anything is sent.
 * 2. describe_outcome() alone turns an outcome into an error.  A single call
 *    raises it, a batch puts it into a row.
 * 3. Text from outside reaches a message only through show_text(), which
 *    blanks secrets; of a body with tokens nothing does.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "compat.h"
#include "settings.h"
#include "tokens.h"

#define CREATE_PATH		"/api/fabric/guests/tokens"
#define REFRESH_PATH	"/api/fabric/subscribers/tokens/refresh"

#define JSON_TYPE		"application/json"

/* What all requests of a call share. */
typedef struct Call
{
	const Settings *settings;
	SecretList	secrets;
	const char *url;
} Call;

/* A call with one request, whose body is ready. */
typedef struct SingleCall
{
	Call		call;
	const char *body;			/* NULL: taken */
	HttpProbe  *probe;
	bool		ok;
	int			status;
	TokenPair	pair;
	CallError	error;
} SingleCall;

/* A call with many. */
typedef struct ManyCall
{
	Call		call;
	GuestTokenSource source;
	GuestTokenSink sink;
	void	   *arg;
	int			ordinality;		/* of the last request that was given */
	bool		stopped;		/* by "error": nothing more is sent */
	CallError	error;
	MemoryContext scratch;		/* for one request or one result */
} ManyCall;

static void begin_call(Call *call, const Settings *settings,
					   const char *path);
static void run_single(SingleCall *single, TokenPair *pair);
static bool give_single(void *arg, HttpRequest *request);
static bool take_single(void *arg, const HttpRequest *request,
						const HttpOutcome *outcome);
static bool give_many(void *arg, HttpRequest *request);
static bool take_many(void *arg, const HttpRequest *request,
					  const HttpOutcome *outcome);
static bool next_checked(ManyCall *many, GuestTokenBody *body);
static bool stops_batch(const HttpOutcome *outcome);
static bool check_args(const GuestTokenArgs *args, GuestTokenBody *body,
					   CallError *error);
static bool check_addresses(ArrayType *addresses, GuestTokenBody *body,
							CallError *error);
static bool check_text(const text *value, const char *name,
					   const char **utf8, CallError *error);
static bool to_utf8(const text *value, const char *name, const char **utf8,
					CallError *error);
static bool judge_outcome(const Call *call, const HttpOutcome *outcome,
						  TokenPair *pair, CallError *error);
static bool is_json(const char *content_type);
static void describe_outcome(const Call *call, const HttpOutcome *outcome,
							 CallError *error);
static void describe_status(const Call *call, const HttpOutcome *outcome,
							CallError *error);
static void describe_refusal(const Call *call, const HttpOutcome *outcome,
							 CallError *error);
static void describe_timeout(const Call *call, const HttpOutcome *outcome,
							 CallError *error);
static void describe_failure(const Call *call, const HttpOutcome *outcome,
							 int sqlstate, const char *message,
							 CallError *error);
static char *show_text(const Call *call, const char *str, size_t length);
static char *from_utf8(const char *str);
static void *alloc_or_null(size_t size);
static void raise_out_of_memory(void) pg_attribute_noreturn();
static void set_error(CallError *error, int sqlstate, const char *format,...)
			pg_attribute_printf(3, 4);
static void raise_error(const CallError *error) pg_attribute_noreturn();

/*
 * Asks for one guest token.  The pair is allocated in the current memory
 * context.  Raises what is wrong with the arguments, then with the settings,
 * then what became of the request.
 */
void
sgt_create_guest_token(const GuestTokenArgs *args, TokenPair *pair)
{
	SingleCall	single = {0};
	GuestTokenBody body;

	if (!check_args(args, &body, &single.error))
		raise_error(&single.error);
	begin_call(&single.call, sgt_load_settings(), CREATE_PATH);
	single.body = sgt_write_guest_token_body(&body, alloc_or_null);
	run_single(&single, pair);
}

/*
 * Trades a refresh token for a new pair; otherwise like
 * sgt_create_guest_token().
 */
void
sgt_refresh_guest_token(const text *refresh_token, TokenPair *pair)
{
	SingleCall	single = {0};
	const char *utf8 = NULL;

	if (refresh_token == NULL)
		set_error(&single.error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
				  "refresh_token must not be null");
	else
		check_text(refresh_token, "refresh_token", &utf8, &single.error);
	if (single.error.message)
		raise_error(&single.error);

	begin_call(&single.call, sgt_load_settings(), REFRESH_PATH);
	Assert(single.call.secrets.n < SGT_MAX_SECRETS);
	single.call.secrets.texts[single.call.secrets.n++] = utf8;
	single.body = sgt_write_refresh_body(utf8, alloc_or_null);
	run_single(&single, pair);
}

/*
 * Asks for all the guest tokens that "source" names, and gives each result to
 * "sink" as it comes; ordinalities count from 1.  Raises what concerns the
 * call as a whole: the settings, and what interrupts it.
 *
 * After a 401 or 403 nothing more is sent, for it would fare no better.  What
 * was not sent gets the same error.
 */
void
sgt_create_guest_tokens(GuestTokenSource source, GuestTokenSink sink,
						void *arg)
{
	ManyCall	many = {
		.source = source,
		.sink = sink,
		.arg = arg
	};
	GuestTokenBody body;
	MemoryContext oldcontext;

	begin_call(&many.call, sgt_load_settings(), CREATE_PATH);
	many.scratch = AllocSetContextCreate(CurrentMemoryContext,
										 "sw_guest_token request",
										 ALLOCSET_DEFAULT_SIZES);
	sgt_http_run(&many.call.settings->http, give_many, take_many, &many);

	while (many.stopped && next_checked(&many, &body))
	{
		oldcontext = MemoryContextSwitchTo(many.scratch);
		many.sink(many.arg, many.ordinality, NULL, &many.error);
		MemoryContextSwitchTo(oldcontext);
	}
	MemoryContextDelete(many.scratch);
}

/*
 * Sends a request that mints nothing, for its address list is empty, over a
 * connection of its own, once, and fills in the probe.  True if the API has
 * judged it, so that the caller is authorized; else the error tells why not.
 */
bool
sgt_probe_api(const Settings *settings, HttpProbe *probe, CallError *error)
{
	SingleCall	single = {0};
	GuestTokenBody body = {0};

	begin_call(&single.call, settings, CREATE_PATH);
	single.body = sgt_write_guest_token_body(&body, alloc_or_null);
	if (single.body == NULL)
		raise_out_of_memory();
	single.probe = probe;
	sgt_http_run(&settings->http, give_single, take_single, &single);
	*error = single.error;
	return single.status == 201 || single.status == 422;
}

/*
 * Calls
 */

static void
begin_call(Call *call, const Settings *settings, const char *path)
{
	call->settings = settings;
	call->secrets = call->settings->secrets;
	call->url = psprintf("%s%s", call->settings->base_url, path);
}

static void
run_single(SingleCall *single, TokenPair *pair)
{
	if (single->body == NULL)
		raise_out_of_memory();
	sgt_http_run(&single->call.settings->http, give_single, take_single,
				 single);
	if (!single->ok)
		raise_error(&single->error);
	*pair = single->pair;
}

static bool
give_single(void *arg, HttpRequest *request)
{
	SingleCall *single = arg;

	if (single->body == NULL)
		return false;
	request->url = single->call.url;
	request->body = single->body;
	request->probe = single->probe;
	single->body = NULL;
	return true;
}

static bool
take_single(void *arg, const HttpRequest *request, const HttpOutcome *outcome)
{
	SingleCall *single = arg;

	(void) request;
	single->status = outcome->status;
	single->ok = judge_outcome(&single->call, outcome, &single->pair,
							   &single->error);
	return true;
}

static bool
give_many(void *arg, HttpRequest *request)
{
	ManyCall   *many = arg;
	GuestTokenBody body;

	if (!next_checked(many, &body))
		return false;
	request->url = many->call.url;
	request->body = sgt_write_guest_token_body(&body, alloc_or_null);
	request->tag = many->ordinality;
	if (request->body == NULL)
		raise_out_of_memory();
	return true;
}

static bool
take_many(void *arg, const HttpRequest *request, const HttpOutcome *outcome)
{
	ManyCall   *many = arg;
	MemoryContext oldcontext;
	TokenPair	pair;
	CallError	error;

	/* a setting that is no good concerns the whole call */
	if (outcome->result == HTTP_BAD_CA_FILE || outcome->result == HTTP_BAD_URL)
	{
		describe_outcome(&many->call, outcome, &error);
		raise_error(&error);
	}

	if (stops_batch(outcome) && !many->stopped)
	{
		/* outlives this result */
		describe_outcome(&many->call, outcome, &many->error);
		many->stopped = true;
	}

	MemoryContextReset(many->scratch);
	oldcontext = MemoryContextSwitchTo(many->scratch);
	if (outcome->result == HTTP_NOT_SENT)
		many->sink(many->arg, request->tag, NULL, &many->error);
	else if (judge_outcome(&many->call, outcome, &pair, &error))
		many->sink(many->arg, request->tag, &pair, NULL);
	else
		many->sink(many->arg, request->tag, NULL, &error);
	MemoryContextSwitchTo(oldcontext);

	pfree(unconstify(char *, request->body));
	return !many->stopped;
}

/*
 * Finds the next request whose arguments are valid; the others' results are
 * given on the way.  Texts of "body" last until the next call.
 */
static bool
next_checked(ManyCall *many, GuestTokenBody *body)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(many->scratch);
	GuestTokenArgs args;
	CallError	error;
	bool		found = false;

	while (!found)
	{
		/* many in a row may be invalid, or the batch stopped */
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(many->scratch);
		memset(&args, 0, sizeof(args));
		if (!many->source(many->arg, &args))
			break;
		many->ordinality++;
		found = check_args(&args, body, &error);
		if (!found)
			many->sink(many->arg, many->ordinality, NULL, &error);
	}
	MemoryContextSwitchTo(oldcontext);
	return found;
}

static bool
stops_batch(const HttpOutcome *outcome)
{
	return outcome->result == HTTP_ANSWERED &&
		(outcome->status == 401 || outcome->status == 403);
}

/*
 * Arguments
 */

/*
 * Fills in the body, or else the error.
 */
static bool
check_args(const GuestTokenArgs *args, GuestTokenBody *body, CallError *error)
{
	memset(body, 0, sizeof(*body));
	if (args->is_null)
	{
		set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
				  "request must not be null");
		return false;
	}
	if (!check_addresses(args->addresses, body, error))
		return false;

	if (args->has_expire_at)
	{
		if (args->expire_at <= (int64) time(NULL))
		{
			set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
					  "expire_at must be in the future");
			error->detail = psprintf("It is " INT64_FORMAT ", as Unix time.",
									 args->expire_at);
			return false;
		}
		body->has_expire_at = true;
		body->expire_at = args->expire_at;
	}
	return check_text(args->region, "region", &body->region, error) &&
		check_text(args->ch, "ch", &body->ch, error);
}

static bool
check_addresses(ArrayType *addresses, GuestTokenBody *body, CallError *error)
{
	static const char digits[] = "0123456789abcdef";
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (addresses == NULL)
	{
		set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
				  "addresses must not be null");
		return false;
	}
	if (ARR_NDIM(addresses) > 1)
	{
		set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
				  "addresses must have one dimension");
		return false;
	}
	n = ArrayGetNItems(ARR_NDIM(addresses), ARR_DIMS(addresses));
	if (n < 1 || n > SGT_MAX_ADDRESSES)
	{
		set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
				  "addresses must have 1 to %d elements", SGT_MAX_ADDRESSES);
		error->detail = psprintf("The number of elements is %d.", n);
		return false;
	}

	deconstruct_array(addresses, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		const pg_uuid_t *uuid;
		char	   *dst = body->addresses[i];

		if (nulls[i])
		{
			set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
					  "addresses must not contain nulls");
			return false;
		}
		uuid = DatumGetUUIDP(elements[i]);
		for (int j = 0; j < UUID_LEN; j++)
		{
			if (j == 4 || j == 6 || j == 8 || j == 10)
				*dst++ = '-';
			*dst++ = digits[uuid->data[j] >> 4];
			*dst++ = digits[uuid->data[j] & 0x0F];
		}
		*dst = '\0';
	}
	body->n_addresses = n;
	return true;
}

/*
 * A text that may be NULL but not empty.
 */
static bool
check_text(const text *value, const char *name, const char **utf8,
		   CallError *error)
{
	*utf8 = NULL;
	if (value == NULL)
		return true;
	if (VARSIZE_ANY_EXHDR(value) == 0)
	{
		set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
				  "%s must not be empty", name);
		return false;
	}
	return to_utf8(value, name, utf8, error);
}

static bool
to_utf8(const text *value, const char *name, const char **utf8,
		CallError *error)
{
	int			encoding = GetDatabaseEncoding();
	char	   *source = VARDATA_ANY(value);
	int			length = VARSIZE_ANY_EXHDR(value);
	char	   *result;
	Oid			proc;

	if (encoding == PG_UTF8 ||
		(encoding == PG_SQL_ASCII &&
		 pg_verify_mbstr(PG_UTF8, source, length, true)))
	{
		*utf8 = pnstrdup(source, length);
		return true;
	}

	proc = FindDefaultConversionProc(encoding, PG_UTF8);
	if (OidIsValid(proc))
	{
		Size		size = (Size) length * MAX_CONVERSION_GROWTH + 1;

		result = MemoryContextAllocHuge(CurrentMemoryContext, size);
		*utf8 = result;
		if (pg_do_encoding_conversion_buf(proc, encoding, PG_UTF8,
										  (unsigned char *) source, length,
										  (unsigned char *) result,
										  (int) Min(size, INT_MAX),
										  true) == length)
			return true;
	}
	set_error(error, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
			  "%s has a character that cannot be converted to encoding \"%s\"",
			  name, pg_encoding_to_char(PG_UTF8));
	return false;
}

/*
 * Outcomes
 */

/*
 * Fills in the pair, or else the error, in the current memory context.
 */
static bool
judge_outcome(const Call *call, const HttpOutcome *outcome, TokenPair *pair,
			  CallError *error)
{
	const char *problem;

	if (outcome->result != HTTP_ANSWERED || outcome->status != 201)
	{
		describe_outcome(call, outcome, error);
		return false;
	}

	memset(pair, 0, sizeof(*pair));
	if (!is_json(outcome->content_type))
		problem = "The content type is not \"" JSON_TYPE "\".";
	else
	{
		switch (sgt_read_token_pair(outcome->body, outcome->body_length,
									alloc_or_null, pair, &problem))
		{
			case CODEC_OK:
				return true;
			case CODEC_NO_MEMORY:
				raise_out_of_memory();
			default:
				break;
		}
	}
	set_error(error, ERRCODE_PROTOCOL_VIOLATION,
			  "response from SignalWire is not valid");
	error->detail = pstrdup(problem);
	return false;
}

/* Parameters and letter case are free. */
static bool
is_json(const char *content_type)
{
	size_t		length = strlen(JSON_TYPE);

	return content_type != NULL &&
		pg_strncasecmp(content_type, JSON_TYPE, length) == 0 &&
		strchr("; \t", content_type[length]) != NULL;
}

/*
 * The one place where it is decided how a failure looks: its SQLSTATE,
 * message, DETAIL and HINT.
 */
static void
describe_outcome(const Call *call, const HttpOutcome *outcome,
				 CallError *error)
{
	switch (outcome->result)
	{
		case HTTP_ANSWERED:
			describe_status(call, outcome, error);
			break;
		case HTTP_MALFORMED:
			describe_failure(call, outcome, ERRCODE_PROTOCOL_VIOLATION,
							 "response from SignalWire is not valid", error);
			break;
		case HTTP_NOT_CONNECTED:
			describe_failure(call, outcome,
							 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "could not connect to SignalWire", error);
			break;
		case HTTP_BAD_CERTIFICATE:
			describe_failure(call, outcome,
							 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "could not connect to SignalWire", error);
			error->hint = pstrdup("The server's certificate must be valid for the host and issued by an authority that is trusted: one of the system's, or of the file in \"sw_guest_token.ca_file\".");
			break;
		case HTTP_NO_DESCRIPTOR:
			describe_failure(call, outcome,
							 ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
							 "could not connect to SignalWire", error);
			error->detail = pstrdup("No file descriptor is left.");
			error->hint = pstrdup("Increase \"max_files_per_process\" or the operating system's limit.");
			break;
		case HTTP_CONNECT_TIMED_OUT:
		case HTTP_TIMED_OUT:
			describe_timeout(call, outcome, error);
			break;
		case HTTP_BROKEN:
			describe_failure(call, outcome, ERRCODE_CONNECTION_FAILURE,
							 "connection to SignalWire broke before the response was complete",
							 error);
			break;
		case HTTP_BAD_CA_FILE:
			describe_failure(call, outcome,
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "certificate authorities could not be loaded",
							 error);
			error->hint = pstrdup("Check the parameter \"sw_guest_token.ca_file\"; if it is empty, install the system's certificate authorities.");
			break;
		case HTTP_BAD_URL:
			describe_failure(call, outcome,
							 ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
							 "the URL of the server or of the proxy cannot be used",
							 error);
			error->hint = pstrdup("Check the parameters \"sw_guest_token.base_url\" and \"sw_guest_token.proxy\".");
			break;
		case HTTP_NO_MEMORY:
		case HTTP_NOT_SENT:		/* has no outcome of its own */
			raise_out_of_memory();
	}
}

static void
describe_status(const Call *call, const HttpOutcome *outcome,
				CallError *error)
{
	int			status = outcome->status;
	char	   *excerpt = NULL;

	switch (status)
	{
		case 400:
		case 422:
			set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
					  "SignalWire rejected the request");
			break;
		case 401:
			set_error(error, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
					  "SignalWire did not accept the credentials");
			error->hint = pstrdup("Check the space, the project, and the API token: it needs the scope Voice, Messaging, Fax or Video.");
			break;
		case 403:
			set_error(error, ERRCODE_INSUFFICIENT_PRIVILEGE,
					  "SignalWire denied the request");
			error->hint = pstrdup("The API token lacks a scope.");
			break;
		case 404:
			set_error(error, ERRCODE_UNDEFINED_OBJECT,
					  "SignalWire has nothing at the URL of the request");
			error->hint = pstrdup("Check the parameter \"sw_guest_token.space_name\" or \"sw_guest_token.base_url\".");
			break;
		case 429:
			set_error(error, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
					  "SignalWire limits the rate of requests");
			break;
		default:
			if (status >= 500 && status <= 599)
				set_error(error, ERRCODE_SYSTEM_ERROR,
						  "SignalWire failed to process the request");
			else
				set_error(error, ERRCODE_PROTOCOL_VIOLATION,
						  "response from SignalWire has an unexpected status");
			break;
	}

	if (status == 422)
		describe_refusal(call, outcome, error);
	if (error->detail)
		return;

	/* where a token was awaited, there may be one */
	if (status / 100 != 2)
		excerpt = show_text(call, outcome->body, outcome->body_length);
	error->detail = psprintf("The status was %d in attempt %d%s%s",
							 status, outcome->attempts,
							 excerpt && excerpt[0] ? ": " : ".",
							 excerpt ? excerpt : "");
}

/*
 * A 422 says in words what is wrong.  If it has another shape, nothing is
 * changed.
 */
static void
describe_refusal(const Call *call, const HttpOutcome *outcome,
				 CallError *error)
{
	ApiErrors	errors;

	switch (sgt_read_api_errors(outcome->body, outcome->body_length,
								&call->secrets, alloc_or_null, &errors))
	{
		case CODEC_OK:
			if (errors.message[0])
				error->message = psprintf("%s: %s", error->message,
										  from_utf8(errors.message));
			if (errors.details[0])
				error->detail = from_utf8(errors.details);
			if (errors.url)
				error->hint = psprintf("See %s.", from_utf8(errors.url));
			break;
		case CODEC_NO_MEMORY:
			raise_out_of_memory();
		default:
			break;
	}
}

static void
describe_timeout(const Call *call, const HttpOutcome *outcome,
				 CallError *error)
{
	const HttpConfig *config = &call->settings->http;
	bool		connecting = outcome->result == HTTP_CONNECT_TIMED_OUT;
	char	   *attempts = outcome->attempts == 1 ? pstrdup("1 attempt") :
	psprintf("%d attempts", outcome->attempts);
	char	   *status = outcome->status == 0 ? pstrdup("no status came") :
	psprintf("the last status was %d", outcome->status);

	set_error(error, ERRCODE_CONNECTION_FAILURE,
			  "request to SignalWire timed out");
	error->detail = psprintf("\"sw_guest_token.%s\" (%d ms) ran out while %s, after %s; %s.",
							 connecting ? "connect_timeout" : "timeout",
							 connecting ? config->connect_timeout_ms :
							 config->timeout_ms,
							 outcome->phase, attempts, status);
}

/*
 * A failure of which only libcurl can say more.
 */
static void
describe_failure(const Call *call, const HttpOutcome *outcome, int sqlstate,
				 const char *message, CallError *error)
{
	char	   *reason = show_text(call, outcome->reason,
								   strlen(outcome->reason));
	size_t		length = strlen(reason);

	if (length > 0 && reason[length - 1] == '.')
		reason[length - 1] = '\0';
	set_error(error, sqlstate, "%s", message);
	error->detail = psprintf("Attempt %d: %s.", outcome->attempts, reason);
}

/*
 * Text from outside, made fit for a message.
 */
static char *
show_text(const Call *call, const char *str, size_t length)
{
	char		shown[SGT_SHOWN_SIZE];

	sgt_clean(shown, str, length, &call->secrets);
	return from_utf8(shown);
}

/*
 * The same for others' use.
 */
char	   *
sgt_show_text(const Settings *settings, const char *str)
{
	Call		call = {.settings = settings,.secrets = settings->secrets};

	return show_text(&call, str, strlen(str));
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

/*
 * Errors
 */

/* The codec's allocator: it must not raise. */
static void *
alloc_or_null(size_t size)
{
	return palloc_extended(size, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
}

static void
raise_out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

static void
set_error(CallError *error, int sqlstate, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	initStringInfo(&message);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	error->sqlstate = sqlstate;
	error->message = message.data;
	error->detail = NULL;
	error->hint = NULL;
}

static void
raise_error(const CallError *error)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}
