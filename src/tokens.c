/*-------------------------------------------------------------------------
 * tokens.c
 *		Guest tokens: from checked arguments to the API's answer.
 *
 * It knows SignalWire's API and PostgreSQL's errors, but nothing of function
 * calls or rows (functions.c, trigger.c), or of how requests travel
 * (batch.c).
 *
 * 1. Arguments are checked before anything is sent.
 * 2. A single call is a batch of one: its error is raised, while that of a
 *    batch's request becomes a row.
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

/* Of an argument: issued tokens are no longer, and the rest is far shorter. */
#define MAX_TEXT_LENGTH	SGT_MAX_TOKEN_LENGTH

/* In UTC. */
#define UNIX_TIME_OF_YEAR_10000		INT64CONST(253402300800)

/*
 * Bounds for each part of an interval: months, days, and time.  An interval
 * beyond them does not end between now and the year 9999, unless its parts
 * have different signs; one within them cannot overflow when it is added to
 * the present time.
 */
#define MAX_INTERVAL_YEARS	10000
#define MIN_INTERVAL_YEARS	(-1000)

/* Only requests in flight take a place; results wait until they are taken. */
struct TokenStream
{
	Call		call;
	MemoryContext parent;		/* of the batches */
	Batch	   *batch;			/* NULL: nothing has been submitted */
	TokenSink	sink;
	void	   *arg;
	bool		is_stopped;		/* by "error": nothing more is sent */
	CallError	error;
	MemoryContext scratch;		/* for one request or one result */
	int			n_untaken;		/* requests without a result */
	StreamCounts counts;
};

static Batch *begin_call(Call *call, Target *target, const char *path,
						 MemoryContext parent);
static bool run_single(const Call *call, Batch *batch, const char *body,
					   AttemptExam *exam, TokenPair *pair,
					   CallError *error);
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
 * context.  Raises an error of the arguments first, then of the settings, then
 * of the request.
 */
void
sgt_create_guest_token(const GuestTokenArgs *args, TokenPair *pair)
{
	CallError	error;

	if (!sgt_try_create_guest_token(args, pair, &error))
		sgt_raise_error(&error);
}

/*
 * The same, but an error of the arguments or of the request is not raised:
 * fills in the error and returns false.
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
	batch = begin_call(&call, sgt_load_target(), CREATE_PATH,
					   CurTransactionContext);
	if (run_single(&call, batch,
				   sgt_write_guest_token_body(&body, sgt_alloc_or_null),
				   NULL, pair, error))
		return true;

	if (sgt_is_raised(error, true))
		sgt_raise_error(error);
	return false;
}

/*
 * Whether a failed call raises its error; otherwise the error is its result.
 * Calls that try raise only errors of the settings, and libcurl finds some of
 * those.
 */
bool
sgt_is_raised(const CallError *error, bool is_try)
{
	return !is_try ||
		error->sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
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

	batch = begin_call(&call, sgt_load_target(), REFRESH_PATH,
					   CurTransactionContext);
	Assert(call.secrets.n < SGT_MAX_SECRETS);
	call.secrets.texts[call.secrets.n++] = utf8;
	if (!run_single(&call, batch, sgt_write_refresh_body(utf8, sgt_alloc_or_null),
					NULL, pair, &error))
		sgt_raise_error(&error);
}

/*
 * Sends a request, once and over a connection of its own, and fills in the
 * exam.  The request issues no token, because its address list is empty.
 * True if the API has looked at it, which means that the caller is
 * authorized; else the error tells why not.
 */
bool
sgt_examine_api(Target *target, AttemptExam *exam, CallError *error)
{
	GuestTokenBody body = {0};
	TokenPair	pair;
	Call		call;
	Batch	   *batch = begin_call(&call, target, CREATE_PATH,
								   CurTransactionContext);

	call.is_check = true;
	run_single(&call, batch,
			   sgt_write_guest_token_body(&body, sgt_alloc_or_null), exam,
			   &pair, error);
	return exam->status == SUCCESS_STATUS || exam->status == 422;
}

/*
 * Calls
 */

/*
 * An error is caught in a subtransaction, so its context is the parent of
 * whatever must be deleted then.
 */
static Batch *
begin_call(Call *call, Target *target, const char *path, MemoryContext parent)
{
	char	   *url = psprintf("%s%s", target->base_url, path);
	MemoryContext oldcontext;
	Batch	   *batch;

	call->target = target;
	memcpy(&call->limits, sgt_get_limits(), sizeof(Limits));
	call->secrets = target->secrets;
	call->is_check = false;

	oldcontext = MemoryContextSwitchTo(parent);
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
		   AttemptExam *exam, TokenPair *pair, CallError *error)
{
	Request    *request;
	bool		ok;

	if (body == NULL)
		sgt_raise_out_of_memory();
	request = sgt_submit_request(batch, body, 0, exam != NULL);
	sgt_wait_for_request(request);
	/* the rest may raise, as in sgt_take_result() */
	sgt_step_aside(batch);
	if (exam)
		*exam = *request->exam;
	ok = sgt_judge_outcome(call, &request->outcome, pair, error);
	sgt_count_request(request, ok ? 0 : error->sqlstate);
	sgt_end_batch(batch);
	return ok;
}

/*
 * Streams
 */

/*
 * Begins calls that are made together.  The stream lives in the current memory
 * context, and its requests in a child of "parent": batch.h says what that has
 * to be.
 */
TokenStream *
sgt_begin_stream(MemoryContext parent, TokenSink sink, void *arg)
{
	TokenStream *stream = palloc0(sizeof(TokenStream));

	stream->parent = parent;
	stream->sink = sink;
	stream->arg = arg;
	stream->scratch = AllocSetContextCreate(CurrentMemoryContext,
											"sw_guest_token result",
											ALLOCSET_DEFAULT_SIZES);
	return stream;
}

/*
 * Asks for a guest token, as soon as there is a place, and until then waits
 * and takes results.  The first valid call judges the settings.  An error of
 * the arguments is a result at once, and so is a refusal of the caller: after
 * a 401 or 403 nothing more is sent, because it would fare no better.
 */
void
sgt_submit_call(TokenStream *stream, const GuestTokenArgs *args, int tag)
{
	MemoryContext oldcontext;
	GuestTokenBody body;
	CallError	error;
	char	   *json;
	bool		ok;

	/* many calls in succession may be invalid, or refused */
	sgt_check_for_interrupts();
	sgt_poll_requests();
	while (!sgt_has_place(stream) && sgt_take_result(stream))
		;

	MemoryContextReset(stream->scratch);
	oldcontext = MemoryContextSwitchTo(stream->scratch);
	ok = check_args(args, &body, &error);
	if (!ok || stream->is_stopped)
	{
		if (stream->batch)
			sgt_step_aside(stream->batch);
		stream->sink(stream->arg, tag, NULL, ok ? &stream->error : &error);
	}
	else
	{
		if (stream->batch == NULL)
			stream->batch = begin_call(&stream->call, sgt_load_target(),
									   CREATE_PATH, stream->parent);
		json = sgt_write_guest_token_body(&body, sgt_alloc_or_null);
		if (json == NULL)
			sgt_raise_out_of_memory();

		/* other requests may have all places */
		while (!sgt_has_place(stream))
			sgt_drive(stream->batch);
		(void) sgt_submit_request(stream->batch, json, tag, false);
		stream->n_untaken++;
		stream->counts.requests++;
		stream->counts.most_in_flight = Max(stream->counts.most_in_flight,
											sgt_count_pending());
	}
	MemoryContextSwitchTo(oldcontext);
}

/*
 * Whether a call would not have to wait for a place.
 */
bool
sgt_has_place(const TokenStream *stream)
{
	return stream->batch == NULL || stream->is_stopped ||
		sgt_count_pending() < stream->call.limits.max_concurrency;
}

/*
 * Whether a result can be taken without waiting.
 */
bool
sgt_has_result(const TokenStream *stream)
{
	return stream->batch && sgt_is_any_done(stream->batch);
}

/*
 * Makes further calls use the settings as they are now.  If these have
 * changed, it waits for the requests in flight, and forgets a refusal.  Raises
 * errors of the settings.
 */
void
sgt_renew_stream(TokenStream *stream)
{
	if (stream->batch == NULL ||
		(sgt_load_target() == stream->call.target &&
		 memcmp(sgt_get_limits(), &stream->call.limits, sizeof(Limits)) == 0))
		return;
	while (sgt_take_result(stream))
		;
	sgt_end_calls(stream);
}

/*
 * To be called before somebody else runs, such as the plan below a node:
 * meanwhile this session does not wait for the API.
 */
void
sgt_rest_stream(TokenStream *stream)
{
	if (stream->batch)
		sgt_rest_batch(stream->batch);
}

/*
 * To be called before whoever takes a query's rows runs, possibly for a long
 * time: by the next call, the settings may have changed.  A refusal is kept,
 * because it counts until they have.
 */
void
sgt_leave_stream(TokenStream *stream)
{
	if (stream->n_untaken == 0 && !stream->is_stopped)
		sgt_end_calls(stream);
	else
		sgt_rest_stream(stream);
}

/*
 * Ends what has been asked for.  What is on its way is abandoned; the next
 * call starts afresh.
 */
void
sgt_end_calls(TokenStream *stream)
{
	if (stream->batch == NULL)
		return;
	stream->counts.abandoned += stream->n_untaken;
	stream->n_untaken = 0;
	sgt_end_batch(stream->batch);
	stream->batch = NULL;
	stream->is_stopped = false;
}

/*
 * What has become of the calls so far.
 */
const StreamCounts *
sgt_get_stream_counts(const TokenStream *stream)
{
	return &stream->counts;
}

/*
 * Waits for the next result, and gives it to the sink; false if there is none
 * to wait for.  Raises what concerns the calls as a whole.
 */
bool
sgt_take_result(TokenStream *stream)
{
	Request    *request;
	const Outcome *outcome;
	MemoryContext oldcontext;
	TokenPair	pair;
	CallError	error;
	bool		ok = false;

	request = stream->batch ? sgt_wait_for_any(stream->batch) : NULL;
	if (request == NULL)
		return false;
	outcome = &request->outcome;

	/* the rest may raise, and the client may not read that for a long time */
	sgt_step_aside(stream->batch);

	/*
	 * A setting that cannot be used concerns all calls.  If it becomes
	 * unusable later, tokens may have been issued that must not be thrown
	 * away.
	 */
	if ((outcome->result == ATTEMPT_BAD_CA_FILE ||
		 outcome->result == ATTEMPT_BAD_URL) &&
		!sgt_has_batch_sent(stream->batch))
	{
		sgt_describe_outcome(&stream->call, outcome, &error);
		sgt_raise_error(&error);
	}

	if (!stream->is_stopped && outcome->result == ATTEMPT_ANSWERED &&
		(outcome->status == 401 || outcome->status == 403))
	{
		/* outlives this result */
		oldcontext = MemoryContextSwitchTo(GetMemoryChunkContext(stream));
		sgt_describe_outcome(&stream->call, outcome, &stream->error);
		MemoryContextSwitchTo(oldcontext);
		stream->is_stopped = true;
		sgt_stop_batch(stream->batch);
	}

	MemoryContextReset(stream->scratch);
	oldcontext = MemoryContextSwitchTo(stream->scratch);
	if (outcome->result == ATTEMPT_ABANDONED)
		error = stream->error;
	else
		ok = sgt_judge_outcome(&stream->call, outcome, &pair, &error);
	sgt_count_request(request, ok ? 0 : error.sqlstate);
	stream->n_untaken--;
	stream->counts.retries += Max(outcome->n_attempts - 1, 0);
	stream->sink(stream->arg, request->tag, ok ? &pair : NULL, ok ? NULL : &error);
	MemoryContextSwitchTo(oldcontext);
	sgt_release_request(request);
	return true;
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
		memcpy(body->addresses[i],
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
	error->detail = psprintf(_("The value is %lld, as Unix time."),
							 (long long) expire_at);

	/* batches and triggers lack expires_in, so name what has it */
	error->hint = pstrdup(_("expire_at is a point in time, in Unix seconds; for a duration use the argument expires_in of sw_create_guest_token()."));
	return false;
}

/*
 * Finds the Unix time at which an interval from now on ends, in PostgreSQL's
 * own arithmetic: in the session's time zone, where a day can have 23 hours.
 *
 * A fraction of a second is cut off, so that no token outlives the interval.
 * So an interval shorter than a second is refused: it would end in the future
 * or not, depending on when in a second it begins.
 */
static bool
check_expires_in(const Interval *expires_in, int64 *expire_at,
				 CallError *error)
{
	const char *too_short = gettext_noop("expires_in must be at least one second");
	const char *too_long = gettext_noop("expires_in must not end after the year 9999");
	const int64 days_per_year = 366;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz end;

	/* this catches infinite intervals, too */
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
 * A text that may be NULL, but must be neither empty nor long: writing and
 * searching what is sent cannot be interrupted.
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
