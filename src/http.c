/*-------------------------------------------------------------------------
 * http.c
 *		Runs a batch of HTTP requests to their end, or until interrupted.
 *
 * Knows HTTP, time and retries; knows nothing of tokens or SQL types, and
 * leaves libcurl's habits to engine.c.  A single request is a batch of one.
 *
 * The loop: take requests in, give libcurl a turn, hand outcomes out, wait.
 *
 * 1. Interrupts are served in the loop, and by the caller's callbacks if they
 *    like: never while libcurl is on the stack.
 * 2. An error in the loop, be it a cancel or the caller's, throws the engine
 *    away: connections that wait for an answer are of no use to anybody.
 *    FATAL need not: the process ends.
 * 3. Each request has one deadline, which is kept here; libcurl keeps only
 *    that of a single connection attempt.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>

#include "common/pg_prng.h"
#include "miscadmin.h"

#include "engine.h"
#include "http.h"
#include "transfer.h"

/* Backoff: full jitter, doubling from the first to the second. */
#define MIN_BACKOFF_US		(100 * 1000)
#define MAX_BACKOFF_US		(2000 * 1000)

/*
 * What the server asks for beyond this is not waited for: whoever waits holds a
 * session, a transaction and its locks.
 */
#define MAX_RETRY_AFTER_S	2

/*
 * How often a request that an HTTP/2 server refuses is sent again, beyond what
 * libcurl does by itself.
 */
#define MAX_REFUSALS		5

/*
 * How often libcurl gets a turn before a deadline that has passed counts: a
 * turn reads from a few sockets, and what a sender can keep coming is endless.
 */
#define MAX_LATE_TURNS		256

/* One run. */
typedef struct Batch
{
	const HttpConfig *config;
	HttpNext	next;
	HttpDone	done;
	void	   *arg;
	bool		exhausted;		/* "next" has nothing more */
	bool		stopped;		/* "done" wants nothing more sent */
	bool		connect_failed; /* do not wait for others' connections */
	bool		any_sent;
	int			limit;			/* requests in flight */
	int			n_taken;		/* transfers that are not free */
	int			n_running;
} Batch;

static bool busy = false;		/* a batch is running */

static void refuse_all(Batch *batch);
static void run_batch(Batch *batch);
static void take_requests(Batch *batch);
static void run_turn(Batch *batch, bool sockets_ready);
static bool is_any_due(int64 now);
static void read_late(Batch *batch);
static void start_transfers(Batch *batch, int64 now);
static void withdraw(Batch *batch, Transfer *t);
static void start_attempt(Batch *batch, Transfer *t, int64 now);
static void collect_finished(Batch *batch);
static void expire_transfers(Batch *batch, int64 now);
static void end_attempt(Batch *batch, Transfer *t, HttpResult result);
static bool is_sent_again(Transfer *t, int64 now);
static HttpResult classify(const Transfer *t, CURLcode code);
static bool is_retryable(const HttpOutcome *outcome);
static int64 choose_pause(const Transfer *t);
static int64 back_off(int n);
static bool is_header_too_long(const Transfer *t, CURLcode code);
static bool has_begun(const Transfer *t);
static const char *describe_phase(const Transfer *t);
static void report_attempts(void);
static int	hand_out(Batch *batch);
static bool is_any_sent(void);
static int64 next_wake(void);

/*
 * Runs the requests that "next" gives, max_concurrency at a time, and hands
 * each outcome to "done" as it comes; both get "arg" and may raise.  Raises
 * what interrupts raise, and what concerns the engine as a whole.
 *
 * config->timeout_ms bounds a request from the moment that it is first sent,
 * with all its attempts and the pauses between them.
 */
void
sgt_http_run(const HttpConfig *config, HttpNext next, HttpDone done, void *arg)
{
	Batch		batch = {
		.config = config,
		.next = next,
		.done = done,
		.arg = arg,
		.limit = config->max_concurrency
	};

	if (busy)
		elog(ERROR, "a batch of requests is running already");
	if (!sgt_engine_open(config))
	{
		refuse_all(&batch);
		return;
	}

	busy = true;
	PG_TRY();
	{
		run_batch(&batch);
		sgt_engine_tidy();
	}
	PG_CATCH();
	{
		sgt_engine_discard();
		busy = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	busy = false;
}

/*
 * Without an engine no request can be sent.
 */
static void
refuse_all(Batch *batch)
{
	HttpRequest request = {0};
	const HttpOutcome outcome = {
		.result = HTTP_NO_DESCRIPTOR,
		.reason = ""
	};

	while (batch->next(batch->arg, &request))
		(void) batch->done(batch->arg, &request, &outcome);
}

/*
 * The loop
 */

static void
run_batch(Batch *batch)
{
	bool		sockets_ready = false;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();

		take_requests(batch);
		if (batch->n_taken == 0)
			break;

		run_turn(batch, sockets_ready);
		sockets_ready = false;
		if (message_level_is_interesting(DEBUG1))
			report_attempts();

		/* a place that became free is worth more than what may be ready */
		if (hand_out(batch) == 0)
			sockets_ready = sgt_engine_wait(next_wake());
	}
}

/*
 * Fills the places that are free.
 */
static void
take_requests(Batch *batch)
{
	while (!batch->exhausted && !batch->stopped &&
		   batch->n_taken < batch->limit)
	{
		HttpRequest request = {0};
		Transfer   *t;

		if (!batch->next(batch->arg, &request))
		{
			batch->exhausted = true;
			break;
		}
		t = sgt_take_transfer();
		t->request = request;
		t->state = TRANSFER_PAUSED;
		t->attempts = 0;
		t->deadline_us = 0;
		t->resume_us = 0;
		t->wants_descriptor = false;
		t->wants_fresh = request.probe != NULL;
		t->n_refusals = 0;
		memset(&t->outcome, 0, sizeof(t->outcome));
		batch->n_taken++;
	}
}

/*
 * Gives libcurl a turn.  Everything that enters libcurl during a batch is
 * called from here.
 */
static void
run_turn(Batch *batch, bool sockets_ready)
{
	int64		now = sgt_now_us();
	bool		is_due = is_any_due(now);

	sgt_engine_begin_turn();
	start_transfers(batch, now);
	sgt_engine_perform(sockets_ready, batch->exhausted ? 0 : batch->limit);
	collect_finished(batch);
	if (is_due)
		read_late(batch);
	expire_transfers(batch, now);
	sgt_engine_end_turn();
	sgt_engine_check();
}

/*
 * Whether a transfer is to expire in this turn.
 */
static bool
is_any_due(int64 now)
{
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		if (sgt_transfers[i]->state == TRANSFER_RUNNING &&
			sgt_transfers[i]->deadline_us <= now)
			return true;
	}
	return false;
}

/*
 * Reads all that has come.  An answer that is there counts, however late the
 * process gets to read it.
 */
static void
read_late(Batch *batch)
{
	bool		any_ready = true;

	for (int i = 0; any_ready && i < MAX_LATE_TURNS; i++)
	{
		sgt_engine_end_turn();
		CHECK_FOR_INTERRUPTS();
		sgt_engine_begin_turn();
		any_ready = sgt_engine_perform(true, batch->limit);
		collect_finished(batch);
	}
}

/*
 * Starts what has paused long enough, and what can have a descriptor again.
 */
static void
start_transfers(Batch *batch, int64 now)
{
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (batch->stopped)
			withdraw(batch, t);
		if (t->state != TRANSFER_PAUSED)
			continue;
		if (t->wants_descriptor ? batch->n_running < batch->limit :
			t->resume_us <= now)
			start_attempt(batch, t, now);
	}
}

/*
 * Once the batch is stopped: takes back what is not on its way yet.  What was
 * sent before ends with the outcome that it has.
 */
static void
withdraw(Batch *batch, Transfer *t)
{
	int			n_sent = t->attempts;

	if (t->state == TRANSFER_RUNNING && !t->is_sent)
	{
		sgt_engine_stop(t);
		batch->n_running--;
		n_sent--;
	}
	else if (t->state != TRANSFER_PAUSED)
		return;

	if (n_sent == 0)
		t->outcome.result = HTTP_NOT_SENT;
	t->state = TRANSFER_FINISHED;
}

static void
start_attempt(Batch *batch, Transfer *t, int64 now)
{
	const HttpConfig *config = batch->config;

	t->attempts++;
	t->wants_descriptor = false;
	if (t->deadline_us == 0)
		t->deadline_us = now + config->timeout_ms * INT64CONST(1000);

	/*
	 * Without TLS there is no HTTP/2 to wait for.  And once a connection
	 * attempt has failed, none waits for another any more: one that hangs
	 * must not take the time of those behind it.
	 */
	if (sgt_engine_start(t, config,
						 config->is_https && !batch->connect_failed))
	{
		t->state = TRANSFER_RUNNING;
		batch->n_running++;
	}
	else
		end_attempt(batch, t, HTTP_NO_MEMORY);
}

static void
collect_finished(Batch *batch)
{
	Transfer   *t;
	CURLcode	code;

	while ((t = sgt_engine_next_done(&code)) != NULL)
	{
		HttpResult	result = classify(t, code);

		/* where libcurl's words would mislead */
		if (t->too_large)
			strlcpy(t->reason, gettext_noop("too much came"), sizeof(t->reason));
		else if (is_header_too_long(t, code))
			strlcpy(t->reason, gettext_noop("a header is too long"), sizeof(t->reason));
		else if (result == HTTP_BROKEN && code == CURLE_OK)
			strlcpy(t->reason, gettext_noop("the headers ended early"), sizeof(t->reason));
		end_attempt(batch, t, result);
	}
}

/*
 * Ends what was out of time at a moment before which all was read.
 */
static void
expire_transfers(Batch *batch, int64 now)
{
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (t->deadline_us > now)
			continue;
		if (t->state == TRANSFER_RUNNING)
		{
			/* a refusal is one, though its body stalls */
			end_attempt(batch, t, t->status != 0 && t->status != SUCCESS_STATUS ?
						HTTP_ANSWERED : HTTP_TIMED_OUT);
		}
		else if (t->state == TRANSFER_PAUSED && t->wants_descriptor &&
				 t->attempts > 0)
			t->state = TRANSFER_FINISHED;
	}
}

/*
 * Takes the transfer away from libcurl, and decides how it goes on.
 */
static void
end_attempt(Batch *batch, Transfer *t, HttpResult result)
{
	HttpOutcome *outcome = &t->outcome;
	long		n_connects = 0;
	int64		now = sgt_now_us();
	int64		pause_us;

	t->is_unreported = true;
	t->ended_us = now;
	outcome->attempts = t->attempts;
	batch->any_sent |= t->is_sent;
	outcome->phase = describe_phase(t);
	if (t->easy)
		curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &n_connects);
	t->connection = !t->is_sent ? "no" : n_connects == 0 ? "a kept-alive" : "a new";
	if (t->easy && t->request.probe)
		sgt_transfer_probe(t, t->request.probe);
	if (t->state == TRANSFER_RUNNING)
	{
		sgt_engine_stop(t);
		batch->n_running--;
	}

	/* others hold descriptors: go on with fewer, this one when it can */
	if (result == HTTP_NO_DESCRIPTOR && batch->n_running > 0)
	{
		batch->limit = batch->n_running;
		t->wants_descriptor = true;
		if (--t->attempts == 0)
			t->deadline_us = 0;
		t->state = TRANSFER_PAUSED;
		return;
	}

	/* nobody does but idle connections, to other hosts maybe */
	if (result == HTTP_NO_DESCRIPTOR && sgt_engine_drop_idle())
	{
		t->attempts--;
		t->resume_us = now;
		t->state = TRANSFER_PAUSED;
		return;
	}

	if (result == HTTP_BROKEN && t->header_length == 0 && !batch->stopped &&
		is_sent_again(t, now))
	{
		t->attempts--;
		t->state = TRANSFER_PAUSED;
		return;
	}
	t->wants_fresh = false;

	if (result == HTTP_NOT_CONNECTED || result == HTTP_CONNECT_TIMED_OUT)
		batch->connect_failed = true;

	outcome->result = result;
	outcome->reason = t->reason;
	if (t->status != 0)
		outcome->status = t->status;
	outcome->body = t->body;
	outcome->body_length = t->body_length;
	outcome->content_type = NULL;
	if (t->easy)
		curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE,
						  &outcome->content_type);
	t->state = TRANSFER_FINISHED;

	if (is_retryable(outcome) && t->attempts <= batch->config->max_retries &&
		!batch->stopped && !t->request.probe)
	{
		pause_us = choose_pause(t);
		if (pause_us >= 0 && pause_us < t->deadline_us - now)
		{
			t->resume_us = now + pause_us;
			t->state = TRANSFER_PAUSED;
		}
	}
}

/*
 * Whether a request to which nothing came, not even a byte, is sent again
 * without counting as an attempt; then it says when, and over what.
 */
static bool
is_sent_again(Transfer *t, int64 now)
{
	if (t->is_refused || t->is_shared)
	{
		t->resume_us = now + back_off(t->n_refusals);
		return t->n_refusals++ < MAX_REFUSALS &&
			t->resume_us < t->deadline_us;
	}

	/* the server may have closed a kept-alive connection meanwhile */
	if (t->wants_fresh || t->is_new)
		return false;
	t->wants_fresh = true;
	t->resume_us = now;
	return true;
}

/*
 * Outcomes
 */

static HttpResult
classify(const Transfer *t, CURLcode code)
{
	if (t->no_memory)
		return HTTP_NO_MEMORY;

	/* a refusal is one, however its body ends */
	if (t->status != 0 && t->status != SUCCESS_STATUS)
		return HTTP_ANSWERED;
	if (code == CURLE_OK)
		return t->status != 0 ? HTTP_ANSWERED : HTTP_BROKEN;
	if (t->too_large || is_header_too_long(t, code))
		return HTTP_MALFORMED;

	switch (code)
	{
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_INVALIDCERTSTATUS:
			return HTTP_BAD_CERTIFICATE;
		case CURLE_SSL_CACERT_BADFILE:
			return HTTP_BAD_CA_FILE;
		case CURLE_URL_MALFORMAT:
			return HTTP_BAD_URL;
		case CURLE_OPERATION_TIMEDOUT:
			return HTTP_CONNECT_TIMED_OUT;
		case CURLE_OUT_OF_MEMORY:
			return HTTP_NO_MEMORY;
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_BAD_CONTENT_ENCODING:
			return HTTP_MALFORMED;
		case CURLE_RECV_ERROR:
			/* only the words tell a bad chunk from a connection that broke */
			if (strstr(t->reason, "chunk"))
				return HTTP_MALFORMED;
			break;
		default:
			break;
	}
	if (t->no_descriptor)
		return HTTP_NO_DESCRIPTOR;
	return t->is_sent ? HTTP_BROKEN : HTTP_NOT_CONNECTED;
}

/*
 * Up to 8.5 libcurl says that it ran out of memory.
 */
static bool
is_header_too_long(const Transfer *t, CURLcode code)
{
#if LIBCURL_VERSION_NUM >= 0x080600
	return code == CURLE_TOO_LARGE && has_begun(t);
#else
	return code == CURLE_OUT_OF_MEMORY && has_begun(t);
#endif
}

static bool
is_retryable(const HttpOutcome *outcome)
{
	switch (outcome->result)
	{
		case HTTP_ANSWERED:
			return outcome->status == 429 || outcome->status == 500 ||
				(outcome->status >= 502 && outcome->status <= 504);
		case HTTP_NOT_CONNECTED:
		case HTTP_CONNECT_TIMED_OUT:
		case HTTP_BROKEN:
		case HTTP_NO_DESCRIPTOR:
			return true;
		default:
			return false;
	}
}

/*
 * How long to wait before the next attempt, in microseconds: as long as the
 * server says, or -1 if that is too long.
 */
static int64
choose_pause(const Transfer *t)
{
	curl_off_t	seconds = 0;

	/* a date that has passed is negative, and 0 may be anything */
	if (t->outcome.result == HTTP_ANSWERED)
		curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &seconds);
	if (seconds > MAX_RETRY_AFTER_S)
		return -1;
	if (seconds > 0)
		return seconds * INT64CONST(1000000);
	return back_off(t->attempts - 1);
}

/*
 * The n-th pause, from 0: a random time, so that many clients that failed
 * together do not come back together.
 */
static int64
back_off(int n)
{
	int64		max_us = Min((int64) MIN_BACKOFF_US << Min(n, 16), MAX_BACKOFF_US);

	return (int64) (pg_prng_double(&pg_global_prng_state) * max_us);
}

/*
 * Whether the response has begun, be it only with its end.  From 8.22 on
 * libcurl fills the time in when the attempt ends, whether it was reached.
 */
static bool
has_begun(const Transfer *t)
{
	curl_off_t	begun_us = 0;

	if (t->is_sent)
		curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &begun_us);
	return t->header_length > 0 || begun_us > 0;
}

/*
 * What the attempt is doing, to complete "while ...".
 */
static const char *
describe_phase(const Transfer *t)
{
	curl_off_t	resolved_us = 0;

	if (t->easy)
		curl_easy_getinfo(t->easy, CURLINFO_NAMELOOKUP_TIME_T, &resolved_us);
	if (has_begun(t))
		return gettext_noop("receiving the response");
	if (t->is_sent)
		return gettext_noop("waiting for the response");
	if (t->connected_us != 0)
		return gettext_noop("negotiating TLS");
	if (resolved_us > 0)
		return gettext_noop("connecting");
	return gettext_noop("resolving the host name");
}

/*
 * Tells the log of the attempts that have ended in this turn; of what was
 * sent and received nothing but its size.
 */
static void
report_attempts(void)
{
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (!t->is_unreported)
			continue;
		t->is_unreported = false;
		ereport(DEBUG1,
				(errmsg_internal("sw_guest_token: request %d, attempt %d: status %d after %.1f ms over %s connection, %zu bytes, libcurl's code %d",
								 t->request.tag, t->outcome.attempts,
								 t->status,
								 (t->ended_us - t->started_us) / 1000.0,
								 t->connection,
								 t->header_length + t->body_length,
								 (int) t->code)));
	}
}

/*
 * Hands the finished transfers' outcomes out, and returns how many.
 */
static int
hand_out(Batch *batch)
{
	int			n = 0;

	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (t->state != TRANSFER_FINISHED)
			continue;

		/* a server can make each a matter of milliseconds */
		CHECK_FOR_INTERRUPTS();
		t->outcome.any_sent = batch->any_sent || is_any_sent();
		if (!batch->done(batch->arg, &t->request, &t->outcome))
			batch->stopped = true;
		t->state = TRANSFER_FREE;
		batch->n_taken--;
		n++;
	}
	return n;
}

static bool
is_any_sent(void)
{
	for (int i = 0; i < sgt_n_transfers; i++)
	{
		if (sgt_transfers[i]->state == TRANSFER_RUNNING &&
			sgt_transfers[i]->is_sent)
			return true;
	}
	return false;
}

/*
 * When the batch wants to go on, whatever happens until then.
 */
static int64
next_wake(void)
{
	int64		wake_us = NEVER;

	for (int i = 0; i < sgt_n_transfers; i++)
	{
		Transfer   *t = sgt_transfers[i];

		if (t->state == TRANSFER_RUNNING)
			wake_us = Min(wake_us, t->deadline_us);
		else if (t->state == TRANSFER_PAUSED && !t->wants_descriptor)
			wake_us = Min(wake_us, t->resume_us);
		else if (t->state == TRANSFER_PAUSED && t->attempts > 0)
			wake_us = Min(wake_us, t->deadline_us);
	}
	return wake_us;
}
