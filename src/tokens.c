/*-------------------------------------------------------------------------
 * tokens.c
 *		Guest tokens: from checked arguments to the API's answer.
 *
 * Knows SignalWire's API and PostgreSQL's errors; knows nothing of function
 * calls or rows, which are for functions.c and trigger.c, nor of how requests
 * travel, which is for batch.c.
 *
 * 1. Arguments are checked before anything is sent.
 * 2. A single call is a batch of one: its error is raised, where that of a
 *    batch's request is put into a row.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "answer.h"
#include "messages.h"
#include "settings.h"
#include "tokens.h"

#define CREATE_PATH		"/api/fabric/guests/tokens"
#define REFRESH_PATH	"/api/fabric/subscribers/tokens/refresh"

/* Of an argument; an issued token is no longer, and the rest is far shorter. */
#define MAX_TEXT_LENGTH	SGT_MAX_TOKEN_LENGTH

/* In UTC. */
#define UNIX_TIME_OF_YEAR_10000		INT64CONST(253402300800)

/*
 * Bounds for each part of an interval: months, days, and time.  What is beyond
 * does not end between now and the year 9999, unless the parts have different
 * signs; what is within cannot overflow when it is added to the present time.
 */
#define MAX_INTERVAL_YEARS	10000
#define MIN_INTERVAL_YEARS	(-1000)

/* A call with many. */
typedef struct ManyCall
{
	Call		call;
	GuestTokenSource source;
	GuestTokenSink sink;
	void	   *arg;
	int			ordinality;		/* of the last request that was given */
	bool		is_exhausted;	/* the source has no more */
	bool		is_stopped;		/* by "error": nothing more is sent */
	CallError	error;
	MemoryContext scratch;		/* for one request or one result */
} ManyCall;

static Batch *begin_call(Call *call, Target *target, const char *path);
static bool run_single(const Call *call, Batch *batch, const char *body,
					   AttemptProbe *probe, TokenPair *pair,
					   CallError *error);
static void submit_more(ManyCall *many, Batch *batch);
static void take_answer(ManyCall *many, Batch *batch, Request *request);
static void refuse_rest(ManyCall *many);
static bool next_checked(ManyCall *many, GuestTokenBody *body);
static bool check_args(const GuestTokenArgs *args, GuestTokenBody *body,
					   CallError *error);
static bool check_addresses(ArrayType *addresses, GuestTokenBody *body,
							CallError *error);
static bool check_expire_at(int64 expire_at, CallError *error);
static bool check_expires_in(const Interval *expires_in, int64 *expire_at,
							 CallError *error);
static bool refuse_expires_in(const Interval *expires_in, const char *message,
							  CallError *error);
static bool check_text(const text *value, const char *name,
					   const char **utf8, CallError *error);
static bool to_utf8(const text *value, const char *name, const char **utf8,
					CallError *error);

/*
 * Asks for one guest token.  The pair is allocated in the current memory
 * context.  Raises what is wrong with the arguments, then with the settings,
 * then what became of the request.
 */
void
sgt_create_guest_token(const GuestTokenArgs *args, TokenPair *pair)
{
	CallError	error;

	if (!sgt_try_create_guest_token(args, pair, &error))
		sgt_raise_error(&error);
}

/*
 * The same, but what is wrong with the arguments, or became of the request, is
 * not raised: fills in the error and returns false.
 */
bool
sgt_try_create_guest_token(const GuestTokenArgs *args, TokenPair *pair,
						   CallError *error)
{
	GuestTokenBody body;
	Call		call;
	Batch	   *batch;

	if (!check_args(args, &body, error))
		return false;
	batch = begin_call(&call, sgt_load_target(), CREATE_PATH);
	if (run_single(&call, batch,
				   sgt_write_guest_token_body(&body, sgt_alloc_or_null),
				   NULL, pair, error))
		return true;

	/* libcurl finds some mistakes in the settings, too */
	if (error->sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
		sgt_raise_error(error);
	return false;
}

/*
 * Trades a refresh token for a new pair; otherwise like
 * sgt_create_guest_token().
 */
void
sgt_refresh_guest_token(const text *refresh_token, TokenPair *pair)
{
	const char *utf8 = NULL;
	CallError	error;
	Call		call;
	Batch	   *batch;
	bool		ok;

	ok = refresh_token ?
		check_text(refresh_token, "refresh_token", &utf8, &error) :
		sgt_set_error(&error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
					  "refresh_token must not be null");
	if (!ok)
		sgt_raise_error(&error);

	batch = begin_call(&call, sgt_load_target(), REFRESH_PATH);
	Assert(call.secrets.n < SGT_MAX_SECRETS);
	call.secrets.texts[call.secrets.n++] = utf8;
	if (!run_single(&call, batch, sgt_write_refresh_body(utf8, sgt_alloc_or_null),
					NULL, pair, &error))
		sgt_raise_error(&error);
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
	Batch	   *batch;
	Request    *request;

	many.scratch = AllocSetContextCreate(CurrentMemoryContext,
										 "sw_guest_token request",
										 ALLOCSET_DEFAULT_SIZES);
	batch = begin_call(&many.call, sgt_load_target(), CREATE_PATH);
	do
	{
		submit_more(&many, batch);
		request = sgt_wait_for_any(batch);
		if (request)
			take_answer(&many, batch, request);
	} while (request);
	sgt_end_batch(batch);

	if (many.is_stopped)
		refuse_rest(&many);
	MemoryContextDelete(many.scratch);
}

/*
 * Sends a request that mints nothing, for its address list is empty, over a
 * connection of its own, once, and fills in the probe.  True if the API has
 * judged it, so that the caller is authorized; else the error tells why not.
 */
bool
sgt_probe_api(Target *target, AttemptProbe *probe, CallError *error)
{
	GuestTokenBody body = {0};
	TokenPair	pair;
	Call		call;
	Batch	   *batch = begin_call(&call, target, CREATE_PATH);

	call.is_check = true;
	run_single(&call, batch,
			   sgt_write_guest_token_body(&body, sgt_alloc_or_null), probe,
			   &pair, error);
	return probe->status == SUCCESS_STATUS || probe->status == 422;
}

/*
 * Calls
 */

static Batch *
begin_call(Call *call, Target *target, const char *path)
{
	char	   *url = psprintf("%s%s", target->base_url, path);
	MemoryContext oldcontext;
	Batch	   *batch;

	call->target = target;
	sgt_read_limits(&call->limits);
	call->secrets = target->secrets;
	call->is_check = false;

	/* who catches an error does so in a subtransaction, whose context goes */
	oldcontext = MemoryContextSwitchTo(CurTransactionContext);
	batch = sgt_begin_batch(target, &call->limits, url, SUCCESS_STATUS);
	MemoryContextSwitchTo(oldcontext);
	return batch;
}

/*
 * Sends the one request of a call, ends its batch, and fills in the pair, or
 * else the error.
 */
static bool
run_single(const Call *call, Batch *batch, const char *body,
		   AttemptProbe *probe, TokenPair *pair, CallError *error)
{
	Request    *request;
	bool		ok;

	if (body == NULL)
		sgt_raise_out_of_memory();
	request = sgt_submit_request(batch, body, 0, probe != NULL);
	sgt_wait_for_request(request);
	if (probe)
		*probe = *request->probe;
	ok = sgt_judge_outcome(call, &request->outcome, pair, error);
	sgt_count_request(request, ok ? 0 : error->sqlstate);
	sgt_end_batch(batch);
	return ok;
}

/*
 * Fills the places that are free.
 */
static void
submit_more(ManyCall *many, Batch *batch)
{
	GuestTokenBody args;
	char	   *body;

	while (!many->is_exhausted && !many->is_stopped &&
		   !sgt_is_batch_full(batch))
	{
		if (!next_checked(many, &args))
		{
			many->is_exhausted = true;
			break;
		}
		body = sgt_write_guest_token_body(&args, sgt_alloc_or_null);
		if (body == NULL)
			sgt_raise_out_of_memory();
		(void) sgt_submit_request(batch, body, many->ordinality, false);
		pfree(body);
	}
}

static void
take_answer(ManyCall *many, Batch *batch, Request *request)
{
	const Outcome *outcome = &request->outcome;
	MemoryContext oldcontext;
	TokenPair	pair;
	CallError	error;
	bool		ok = false;

	/*
	 * A setting that is no good concerns the whole call.  If it turns bad on
	 * the way, tokens may have been issued that must not be thrown away.
	 */
	if ((outcome->result == ATTEMPT_BAD_CA_FILE ||
		 outcome->result == ATTEMPT_BAD_URL) && !sgt_has_batch_sent(batch))
	{
		sgt_describe_outcome(&many->call, outcome, &error);
		sgt_raise_error(&error);
	}

	if (!many->is_stopped && outcome->result == ATTEMPT_ANSWERED &&
		(outcome->status == 401 || outcome->status == 403))
	{
		/* outlives this result */
		sgt_describe_outcome(&many->call, outcome, &many->error);
		many->is_stopped = true;
		sgt_stop_batch(batch);
	}

	MemoryContextReset(many->scratch);
	oldcontext = MemoryContextSwitchTo(many->scratch);
	if (outcome->result == ATTEMPT_ABANDONED)
		error = many->error;
	else
		ok = sgt_judge_outcome(&many->call, outcome, &pair, &error);
	sgt_count_request(request, ok ? 0 : error.sqlstate);
	many->sink(many->arg, request->tag, ok ? &pair : NULL, ok ? NULL : &error);
	MemoryContextSwitchTo(oldcontext);
	sgt_release_request(request);
}

/*
 * Gives all requests that were not submitted the error that stopped the batch,
 * unless they have one of their own.
 */
static void
refuse_rest(ManyCall *many)
{
	GuestTokenBody body;

	while (!many->is_exhausted && next_checked(many, &body))
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(many->scratch);

		many->sink(many->arg, many->ordinality, NULL, &many->error);
		MemoryContextSwitchTo(oldcontext);
	}
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
		return sgt_set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
							 "request must not be null");
	if (!check_addresses(args->addresses, body, error))
		return false;

	body->has_expire_at = args->has_expire_at || args->expires_in;
	body->expire_at = args->expire_at;
	if (args->has_expire_at && args->expires_in)
		return sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
							 "expire_at and expires_in must not be given together");
	if (args->has_expire_at && !check_expire_at(args->expire_at, error))
		return false;
	if (args->expires_in &&
		!check_expires_in(args->expires_in, &body->expire_at, error))
		return false;
	return check_text(args->region, "region", &body->region, error) &&
		check_text(args->ch, "ch", &body->ch, error);
}

static bool
check_addresses(ArrayType *addresses, GuestTokenBody *body, CallError *error)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	if (addresses == NULL)
		return sgt_set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
							 "addresses must not be null");
	if (ARR_NDIM(addresses) > 1)
		return sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
							 "addresses must have one dimension");
	n = ArrayGetNItems(ARR_NDIM(addresses), ARR_DIMS(addresses));
	if (n < 1 || n > SGT_MAX_ADDRESSES)
	{
		sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
					  "addresses must have 1 to %d elements", SGT_MAX_ADDRESSES);
		error->detail = psprintf(_("The number of elements is %d."), n);
		return false;
	}

	deconstruct_array(addresses, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			return sgt_set_error(error, ERRCODE_NULL_VALUE_NOT_ALLOWED,
								 "addresses must not contain nulls");
		strlcpy(body->addresses[i],
				DatumGetCString(DirectFunctionCall1(uuid_out, elements[i])),
				SGT_UUID_TEXT_SIZE);
	}
	body->n_addresses = n;
	return true;
}

static bool
check_expire_at(int64 expire_at, CallError *error)
{
	if (expire_at > (int64) time(NULL))
		return true;
	sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
				  "expire_at must be in the future");
	error->detail = psprintf(_("It is %lld, as Unix time."),
							 (long long) expire_at);

	/* batches and triggers have no expires_in, so that its function is named */
	error->hint = pstrdup(_("expire_at is a point in time, in Unix seconds; for a duration use the argument expires_in of sw_create_guest_token()."));
	return false;
}

/*
 * Finds the Unix time at which an interval from now on ends, in PostgreSQL's
 * own arithmetic: in the session's time zone, where a day can have 23 hours.
 *
 * A fraction of a second is cut off, so that no token outlives the interval.
 * Hence an interval shorter than a second is refused: it would end in the
 * future or not, depending on when in a second it begins.
 */
static bool
check_expires_in(const Interval *expires_in, int64 *expire_at,
				 CallError *error)
{
	const char *too_short = gettext_noop("expires_in must be at least one second");
	const char *too_long = gettext_noop("expires_in must not reach beyond the year 9999");
	const int64 days_per_year = 366;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end;

	/* infinite intervals are here, too */
	if (expires_in->month > MAX_INTERVAL_YEARS * MONTHS_PER_YEAR ||
		expires_in->day > MAX_INTERVAL_YEARS * days_per_year ||
		expires_in->time > MAX_INTERVAL_YEARS * days_per_year * USECS_PER_DAY)
		return refuse_expires_in(expires_in, too_long, error);
	if (expires_in->month < MIN_INTERVAL_YEARS * MONTHS_PER_YEAR ||
		expires_in->day < MIN_INTERVAL_YEARS * days_per_year ||
		expires_in->time < MIN_INTERVAL_YEARS * days_per_year * USECS_PER_DAY)
		return refuse_expires_in(expires_in, too_short, error);

	end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												  TimestampTzGetDatum(now),
												  IntervalPGetDatum(expires_in)));
	if (end - now < USECS_PER_SEC)
		return refuse_expires_in(expires_in, too_short, error);

	*expire_at = sgt_unix_time(end);
	if (*expire_at >= UNIX_TIME_OF_YEAR_10000)
		return refuse_expires_in(expires_in, too_long, error);
	return true;
}

static bool
refuse_expires_in(const Interval *expires_in, const char *message,
				  CallError *error)
{
	Datum		shown = DirectFunctionCall1(interval_out,
											IntervalPGetDatum(expires_in));

	sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE, "%s", _(message));
	error->detail = psprintf(_("It is %s."), DatumGetCString(shown));
	return false;
}

/*
 * A text that may be NULL, but neither empty nor long: what is sent is written
 * and searched for without a look at interrupts.
 */
static bool
check_text(const text *value, const char *name, const char **utf8,
		   CallError *error)
{
	*utf8 = NULL;
	if (value == NULL)
		return true;
	if (VARSIZE_ANY_EXHDR(value) == 0)
		return sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
							 "%s must not be empty", name);
	if (VARSIZE_ANY_EXHDR(value) > MAX_TEXT_LENGTH)
		return sgt_set_error(error, ERRCODE_INVALID_PARAMETER_VALUE,
							 "%s must not be longer than %d bytes", name,
							 MAX_TEXT_LENGTH);
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
	return sgt_set_error(error, ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
						 "%s has a character that cannot be converted to encoding \"%s\"",
						 name, pg_encoding_to_char(PG_UTF8));
}
