/*-------------------------------------------------------------------------
 * batch_test.c
 *		Lets SQL hold several batches open at once.
 *
 * The tests link it with the extension's own objects; it is never installed.
 * Batches have numbers, and so do their requests: their tags.
 *
 * "--wrap=sgt_perform" makes every turn come through here, so that a signal
 * can arrive at a moment that no other process could hit.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "../src/batch.h"
#include "../src/engine.h"
#include "../src/settings.h"

#define N_BATCHES	10
#define N_REQUESTS	1000

static struct
{
	MemoryContext context;		/* the batch's parent; NULL: not open */
	MemoryContextCallback callback;
	Batch	   *batch;
	Request    *requests[N_REQUESTS];	/* NULL: none, or released */
	bool		is_handed_out[N_REQUESTS];
}			batches[N_BATCHES];

/* The request whose report fails or is held, or whose deadline brings a cancel */
static int	failing_tag = 0;	/* 0: none */
static int	held_tag = 0;
static int	held_ms;
static int	cancelling_tag = 0;

static emit_log_hook_type next_log_hook = NULL;
static bool has_log_hook = false;

extern bool __wrap_sgt_perform(bool sockets_ready, int max_connections);
extern bool __real_sgt_perform(bool sockets_ready, int max_connections);

PG_FUNCTION_INFO_V1(batch_begin);
PG_FUNCTION_INFO_V1(batch_submit);
PG_FUNCTION_INFO_V1(batch_wait);
PG_FUNCTION_INFO_V1(batch_release);
PG_FUNCTION_INFO_V1(batch_stop);
PG_FUNCTION_INFO_V1(batch_end);
PG_FUNCTION_INFO_V1(batch_is_open);
PG_FUNCTION_INFO_V1(batch_pending);
PG_FUNCTION_INFO_V1(batch_wait_for_place);
PG_FUNCTION_INFO_V1(batch_state);
PG_FUNCTION_INFO_V1(batch_fail_report);
PG_FUNCTION_INFO_V1(batch_hold_report);
PG_FUNCTION_INFO_V1(batch_cancel_overdue);

/* The number of a batch, open or not. */
static int
get_number(FunctionCallInfo fcinfo)
{
	int			n = PG_GETARG_INT32(0);

	if (n < 0 || n >= N_BATCHES)
		elog(ERROR, "no such batch: %d", n);
	return n;
}

static Batch *
get_batch(FunctionCallInfo fcinfo)
{
	int			n = get_number(fcinfo);

	if (batches[n].context == NULL)
		elog(ERROR, "batch %d is not open", n);
	return batches[n].batch;
}

static Request *
get_request(FunctionCallInfo fcinfo)
{
	int			tag = PG_GETARG_INT32(1);

	(void) get_batch(fcinfo);
	if (tag < 0 || tag >= N_REQUESTS ||
		batches[get_number(fcinfo)].requests[tag] == NULL)
		elog(ERROR, "no such request: %d", tag);
	return batches[get_number(fcinfo)].requests[tag];
}

static void
note_end(void *arg)
{
	batches[(intptr_t) arg].context = NULL;
}

/*
 * batch_begin(n int, script text, parent text): begins a batch with the
 * settings as they are.
 */
Datum
batch_begin(PG_FUNCTION_ARGS)
{
	int			n = get_number(fcinfo);
	const char *script = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const char *parent = text_to_cstring(PG_GETARG_TEXT_PP(2));
	Target	   *target = sgt_load_target();
	MemoryContext context = NULL;
	MemoryContext oldcontext;
	const char *url = psprintf("%s/script/%s/api/fabric/guests/tokens",
							   target->base_url, script);

	if (batches[n].context)
		elog(ERROR, "batch %d is open", n);
	if (strcmp(parent, "session") == 0)
		context = TopMemoryContext;
	else if (strcmp(parent, "transaction") == 0)
		context = TopTransactionContext;
	else if (strcmp(parent, "subtransaction") == 0)
		context = CurTransactionContext;
	else if (strcmp(parent, "portal") == 0)
		context = PortalContext;
	else
		elog(ERROR, "no such context: %s", parent);

	memset(&batches[n], 0, sizeof(batches[n]));
	context = AllocSetContextCreate(context, "batch_test",
									ALLOCSET_SMALL_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	batches[n].batch = sgt_begin_batch(target, sgt_get_limits(), url, 201);
	batches[n].callback.func = note_end;
	batches[n].callback.arg = (void *) (intptr_t) n;
	MemoryContextRegisterResetCallback(context, &batches[n].callback);
	batches[n].context = context;
	MemoryContextSwitchTo(oldcontext);
	PG_RETURN_VOID();
}

/*
 * batch_submit(n int, tag int)
 */
Datum
batch_submit(PG_FUNCTION_ARGS)
{
	Batch	   *batch = get_batch(fcinfo);
	int			tag = PG_GETARG_INT32(1);
	const char *body = psprintf("{\"allowed_addresses\": [\"11111111-1111-1111-1111-%012d\"]}",
								tag);

	batches[get_number(fcinfo)].requests[tag] =
		sgt_submit_request(batch, body, tag, false);
	PG_RETURN_VOID();
}

/*
 * batch_wait(n int, tag int) returns text: waits for one request, or for any
 * if the tag is NULL, and returns its outcome; NULL if there is none.
 */
Datum
batch_wait(PG_FUNCTION_ARGS)
{
	static const char *const ends[] = {
		"answered", "malformed", "not connected", "bad certificate",
		"connect timed out", "timed out", "broken", "bad ca_file", "bad url",
		"no descriptor", "no look-up", "no memory", "engine failed", "not sent"
	};
	Batch	   *batch = get_batch(fcinfo);
	Request    *r;
	char	   *text;

	if (PG_ARGISNULL(1))
		r = sgt_wait_for_any(batch);
	else
	{
		r = get_request(fcinfo);
		sgt_wait_for_request(r);
	}
	if (r == NULL)
		PG_RETURN_NULL();

	batches[get_number(fcinfo)].is_handed_out[r->tag] = true;
	text = psprintf("%d: %s, %d after %d", r->tag, ends[r->outcome.result],
					r->outcome.status, r->outcome.n_attempts);
	if (r->outcome.result == ATTEMPT_TIMED_OUT)
		text = psprintf("%s, %s", text, r->outcome.phase);
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

/*
 * batch_release(n int, tag int)
 */
Datum
batch_release(PG_FUNCTION_ARGS)
{
	sgt_release_request(get_request(fcinfo));
	batches[get_number(fcinfo)].requests[PG_GETARG_INT32(1)] = NULL;
	batches[get_number(fcinfo)].is_handed_out[PG_GETARG_INT32(1)] = false;
	PG_RETURN_VOID();
}

/*
 * batch_stop(n int)
 */
Datum
batch_stop(PG_FUNCTION_ARGS)
{
	sgt_stop_batch(get_batch(fcinfo));
	PG_RETURN_VOID();
}

/*
 * batch_end(n int)
 */
Datum
batch_end(PG_FUNCTION_ARGS)
{
	sgt_end_batch(get_batch(fcinfo));
	MemoryContextDelete(batches[get_number(fcinfo)].context);
	PG_RETURN_VOID();
}

/*
 * batch_is_open(n int) returns bool
 */
Datum
batch_is_open(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(batches[get_number(fcinfo)].context != NULL);
}

/*
 * batch_pending() returns int: how many requests of all batches are on their way.
 */
Datum
batch_pending(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(sgt_count_pending());
}

/*
 * batch_wait_for_place(n int, places int) returns int: how many requests are on
 * their way when fewer than that are.
 */
Datum
batch_wait_for_place(PG_FUNCTION_ARGS)
{
	while (sgt_count_pending() >= PG_GETARG_INT32(1))
		sgt_drive(get_batch(fcinfo));
	PG_RETURN_INT32(sgt_count_pending());
}

/*
 * batch_state(n int, tag int) returns text: what a request is doing.
 */
Datum
batch_state(PG_FUNCTION_ARGS)
{
	Request    *r = get_request(fcinfo);
	const char *state = NULL;

	switch (r->state)
	{
		case REQUEST_READY:
			state = r->timer.wake_us != 0 ? "ready with a deadline" : "ready";
			break;
		case REQUEST_RUNNING:
			state = r->is_overdue ? "overdue" :
				r->attempt->header_length > 0 ? "receiving" :
				r->attempt->is_sent ? "waiting" :
				r->attempt->connected_us > 0 ? "connected" : "connecting";
			break;
		case REQUEST_ENDED:
			state = "ended";
			break;
		case REQUEST_PAUSED:
			state = "paused";
			break;
		case REQUEST_DONE:
			state = batches[get_number(fcinfo)].is_handed_out[r->tag] ?
				"handed out" : "done";
			break;
	}
	PG_RETURN_TEXT_P(cstring_to_text(state));
}

/*
 * Whether a log line is the report of an attempt of a request with this tag.
 */
static bool
is_report(const ErrorData *edata, int tag)
{
	char		prefix[64];

	snprintf(prefix, sizeof(prefix), "sw_guest_token: request %d,", tag);
	return tag != 0 && edata->elevel == DEBUG1 && edata->message &&
		strncmp(edata->message, prefix, strlen(prefix)) == 0;
}

/*
 * Fails as the log does when memory is short, or takes as long as a client
 * that does not read.
 */
static void
meddle(ErrorData *edata)
{
	if (is_report(edata, held_tag))
	{
		TimestampTz until = GetCurrentTimestamp() + held_ms * INT64CONST(1000);

		held_tag = 0;
		while (GetCurrentTimestamp() < until)
			pg_usleep(10 * 1000);
	}
	if (is_report(edata, failing_tag))
	{
		failing_tag = 0;
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("the report has failed")));
	}
	if (next_log_hook)
		next_log_hook(edata);
}

static void
install_log_hook(void)
{
	if (has_log_hook)
		return;
	next_log_hook = emit_log_hook;
	emit_log_hook = meddle;
	has_log_hook = true;
}

/*
 * batch_fail_report(tag int), batch_hold_report(tag int, ms int): the next
 * report of a request with this tag fails, or takes this long.  They need
 * "log_min_messages" to be "debug1".
 */
Datum
batch_fail_report(PG_FUNCTION_ARGS)
{
	install_log_hook();
	failing_tag = PG_GETARG_INT32(0);
	PG_RETURN_VOID();
}

Datum
batch_hold_report(PG_FUNCTION_ARGS)
{
	install_log_hook();
	held_tag = PG_GETARG_INT32(0);
	held_ms = PG_GETARG_INT32(1);
	PG_RETURN_VOID();
}

/*
 * batch_cancel_overdue(tag int): when the deadline of a request with this tag
 * has passed, a cancel comes in the same turn.
 */
Datum
batch_cancel_overdue(PG_FUNCTION_ARGS)
{
	cancelling_tag = PG_GETARG_INT32(0);
	PG_RETURN_VOID();
}

bool
__wrap_sgt_perform(bool sockets_ready, int max_connections)
{
	for (int n = 0; cancelling_tag != 0 && n < N_BATCHES; n++)
	{
		if (batches[n].context && batches[n].requests[cancelling_tag] &&
			batches[n].requests[cancelling_tag]->is_overdue)
		{
			cancelling_tag = 0;
			kill(getpid(), SIGINT); /* signals are blocked here */
		}
	}
	return __real_sgt_perform(sockets_ready, max_connections);
}
