/*-------------------------------------------------------------------------
 * drive.c
 *		All requests of the backend, driven by whoever waits.
 *
 * Requests belong to batches, and several batches may be open: a trigger can
 * make a call while a query reads ahead.  Whoever waits drives the requests
 * of all batches.  Each outcome stays with its batch until the owner asks for
 * it.
 *
 * It knows which request may run, and until when, and takes it from one state
 * to the next.  It leaves libcurl's habits to engine.c, further attempts to
 * retry.c, and what sessions share to guard.c.
 *
 * 1. Interrupts are served between turns: never while libcurl is on the
 *    stack.  They raise an error in the batch that is waiting, and end only
 *    that one.
 * 2. Each request has one deadline, which counts from its first start to its
 *    end, but not while nobody drives.  libcurl watches only that of a single
 *    connection attempt.
 * 3. Whatever has arrived is read before a deadline counts.
 * 4. The global state (timers, lists and counters) is consistent whenever an
 *    error may be raised, so that whoever drives next can go on.
 *
 * A request is "started" when the engine gets its attempt, and "sent" when
 * libcurl has begun to write it to a connection.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "clock.h"
#include "connection.h"
#include "drive.h"
#include "engine.h"

/* How much is read before a deadline counts as passed. */
#define MAX_LATE_TURNS		256
#define MAX_LATE_US			(1000 * 1000)

/* How often requests make progress while their owner does something else. */
#define POLL_US				1000

/* If nobody drives for longer, nobody knows when an answer arrived. */
#define MAX_GAP_US			(100 * 1000)

/* A process that oversleeps by more was stopped, maybe with the machine. */
#define MAX_OVERSLEPT_US	(500 * 1000)

static dlist_head open_batches = DLIST_STATIC_INIT(open_batches);

/* Requests whose timers have fired; an answer may have come before that. */
static dlist_head overdue = DLIST_STATIC_INIT(overdue);

/* Requests to be started, first come, first served. */
static dlist_head ready = DLIST_STATIC_INIT(ready);

/* Requests whose attempts have ended. */
static dlist_head ended = DLIST_STATIC_INIT(ended);

static int	n_pending = 0;		/* of all batches */
static int	n_running = 0;

/* Lowered when descriptors are short, until all batches have ended. */
static int	max_running = INT_MAX;

/* When the last turn or sleep ended, but for what settle_ended() took. */
static int64 driven_us = 0;

/* What the last sleep found, for the next turn. */
static bool sockets_ready = false;

static void resume(Batch *batch);
static void run_turn(void);
static void skip_gap(int64 now);
static void fire_timers(int64 now);
static void start_ready(int64 now);
static bool is_let_through(Request *r, int64 now);
static bool start(Request *r, int64 now);
static bool collect_ended(bool read_sockets);
static void note_end(Request *r);
static void expire_overdue(void);
static void settle_ended(void);
static void step_all_aside(void);
static void come_back(void);
static void observe(Request *r);
static bool start_again(Request *r);
static bool wait_for_descriptor(Request *r, bool *has_dropped);
static void undo_attempt(Request *r);
static int64 time_to_go_on(Request *r);
static void tell_guard(Request *r, AttemptEnd result);
static void make_ready(Request *r);
static void finish(Request *r, AttemptEnd result);
static void ask_for_held(Batch *batch);
static void set_timer(Request *r, int64 wake_us);
static void stop_timer(Request *r);
static int64 next_wake(void);

/*
 * Batches and requests
 */

/* How many requests of all batches have no outcome yet. */
int
sgt_count_pending(void)
{
	return n_pending;
}

void
sgt_add_batch(Batch *batch)
{
	dlist_push_tail(&open_batches, &batch->node);
}

/* An open batch of a resource owner; NULL if there is none. */
Batch	   *
sgt_find_batch_of(ResourceOwner owner)
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_batches)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		if (batch->owner == owner)
			return batch;
	}
	return NULL;
}

/* Removes a batch, whose requests must have been removed before. */
void
sgt_remove_batch(Batch *batch)
{
	sgt_rest_batch(batch);
	dlist_delete(&batch->node);
	if (dlist_is_empty(&open_batches))
	{
		max_running = INT_MAX;
		sgt_tidy_engine();
	}
}

/*
 * Tells the guard that this session does not wait for the API, until the
 * batch is used again.
 */
void
sgt_rest_batch(Batch *batch)
{
	sgt_step_aside(batch);
	if (batch->presence == PRESENCE_ASIDE)
		batch->presence = PRESENCE_OUTSIDE;
}

/*
 * The same for a moment, such as while something may raise: the batch is not
 * turned away when it comes back.
 */
void
sgt_step_aside(Batch *batch)
{
	if (batch->presence != PRESENCE_INSIDE)
		return;
	sgt_leave_guard(batch->guarded);
	batch->presence = PRESENCE_ASIDE;
}

/*
 * Each time, the guard decides again whether the session is one too many,
 * unless it only stepped aside.
 */
static void
resume(Batch *batch)
{
	if (batch->presence != PRESENCE_INSIDE && batch->presence != PRESENCE_EXEMPT)
		batch->presence = sgt_enter_guard(batch->guarded, &batch->limits,
										  batch->presence == PRESENCE_ASIDE) ?
			PRESENCE_INSIDE : PRESENCE_TURNED_AWAY;
}

/* Adds a batch's new request, to be started in a turn. */
void
sgt_add_request(Request *r)
{
	resume(r->batch);
	dlist_push_tail(&r->batch->pending, &r->node);
	n_pending++;
	if (r->batch->has_engine)
		make_ready(r);
	else
		finish(r, ATTEMPT_NO_DESCRIPTOR);
}

/*
 * Takes a request that is about to be freed out of everything but its batch's
 * list.
 */
void
sgt_remove_request(Request *r)
{
	if (r->state != REQUEST_DONE)
		n_pending--;
	if (r->state == REQUEST_RUNNING)
	{
		sgt_stop_attempt(r->attempt, ATTEMPT_ABANDONED);
		n_running--;
	}
	if (r->state == REQUEST_RUNNING || r->state == REQUEST_ENDED)
		tell_guard(r, ATTEMPT_ABANDONED);
	if (r->state == REQUEST_READY || r->state == REQUEST_ENDED)
		dlist_delete(&r->queue_node);
	stop_timer(r);
	sgt_end_watch(r->batch->guarded, &r->watch);
}

/*
 * Ends a request with the outcome that it has, unless it has been sent: then
 * it goes on.
 */
void
sgt_take_back_request(Request *r)
{
	if (r->state == REQUEST_ENDED ||
		(r->state == REQUEST_RUNNING && r->attempt->n_sent > 0))
		return;
	if (r->state == REQUEST_RUNNING)
	{
		sgt_stop_attempt(r->attempt, ATTEMPT_ABANDONED);
		n_running--;
		r->outcome.n_attempts -= !r->retry.is_repeat;
	}
	if (r->state == REQUEST_READY)
		dlist_delete(&r->queue_node);
	finish(r, r->outcome.n_attempts == 0 ? ATTEMPT_ABANDONED : r->outcome.result);
}

/*
 * Turns
 */

/*
 * Serves interrupts.  They may say something to a client that does not read for
 * a long time: meanwhile the session does not count as waiting for the API.
 */
void
sgt_check_for_interrupts(void)
{
	if (INTERRUPTS_PENDING_CONDITION())
		step_all_aside();
	CHECK_FOR_INTERRUPTS();
	come_back();
}

/*
 * Leaves the guard, until come_back().  If an error is raised in between, a
 * batch that survives it comes back as it goes on.
 */
static void
step_all_aside(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_batches)
		sgt_step_aside(dlist_container(Batch, node, iter.cur));
}

static void
come_back(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &open_batches)
	{
		Batch	   *batch = dlist_container(Batch, node, iter.cur);

		if (batch->presence == PRESENCE_ASIDE)
			resume(batch);
	}
}

/*
 * For a batch's owner who waits: takes a turn, and sleeps unless a request
 * has ended, or the turn has left a gap, which the next one has to see.
 */
void
sgt_drive(Batch *batch)
{
	int			n = n_pending;
	int64		wake_us;

	sgt_check_for_interrupts();
	resume(batch);
	run_turn();
	if (n_pending != n || sgt_now_us() - driven_us > MAX_GAP_US)
		return;
	wake_us = next_wake();
	sockets_ready = sgt_wait_for_engine(&wake_us);
	driven_us = sgt_now_us();
	/* nobody could drive after that: the next turn finds a gap */
	if (driven_us - MAX_OVERSLEPT_US > wake_us)
		driven_us = wake_us;
}

/*
 * Takes a turn without waiting, if there was none for a while: for an owner
 * who has something else to do between two waits.
 */
void
sgt_poll_requests(void)
{
	if (n_pending == 0 || sgt_now_us() - driven_us < POLL_US)
		return;
	sgt_check_for_interrupts();
	sockets_ready = true;
	run_turn();
}

/* Lets all requests go on as far as they can without waiting. */
static void
run_turn(void)
{
	int64		now;

	/* what an earlier turn left undone because of an error */
	settle_ended();
	now = sgt_now_us();
	if (now - driven_us > MAX_GAP_US)
		skip_gap(now);

	fire_timers(now);
	sgt_begin_turn();
	start_ready(now);
	(void) collect_ended(sockets_ready);
	sgt_end_turn();
	sockets_ready = false;
	driven_us = sgt_now_us();

	if (!dlist_is_empty(&overdue))
		expire_overdue();
	/* a client may be slow to read what this reports: that is a gap, too */
	settle_ended();
}

/*
 * Time in which nobody drives does not count: the client of a query that reads
 * ahead may be busy with the last rows while requests are in flight.
 */
static void
skip_gap(int64 now)
{
	int64		gap_us = now - driven_us;
	dlist_iter	batches;
	dlist_iter	iter;

	dlist_foreach(batches, &open_batches)
	{
		dlist_foreach(iter, &dlist_container(Batch, node, batches.cur)->pending)
		{
			Request    *r = dlist_container(Request, node, iter.cur);
			int64		wake_us = r->timer.wake_us;

			if (r->state == REQUEST_RUNNING)
				sgt_note_gap(r->attempt, driven_us, now);
			if (r->deadline_us == 0)
				continue;
			r->deadline_us += gap_us;
			if (wake_us != 0 && r->state != REQUEST_PAUSED)
				set_timer(r, wake_us + gap_us);
		}
	}
}

/* Ends pauses, and notes which deadlines have passed. */
static void
fire_timers(int64 now)
{
	Timer	   *timer;

	while ((timer = sgt_get_first_timer()) != NULL && timer->wake_us <= now)
	{
		Request    *r = timer_container(Request, timer, timer);

		stop_timer(r);
		if (r->state == REQUEST_PAUSED)
			make_ready(r);
		else if (r->state == REQUEST_RUNNING)
		{
			r->is_overdue = true;
			dlist_push_tail(&overdue, &r->queue_node);
		}
		else
		{
			/* it waits to be started again, and keeps its last outcome */
			Assert(r->state == REQUEST_READY);
			dlist_delete(&r->queue_node);
			finish(r, r->outcome.result);
		}
	}
}

static void
start_ready(int64 now)
{
	while (!dlist_is_empty(&ready) && n_running < max_running)
	{
		Request    *r = dlist_container(Request, queue_node,
										dlist_pop_head_node(&ready));

		if (!is_let_through(r, now))
			continue;
		if (start(r, now))
		{
			r->state = REQUEST_RUNNING;
			n_running++;
			set_timer(r, Min(r->deadline_us,
							 sgt_add_silence(r->batch->guarded, now)));
		}
		else
			finish(r, r->attempt ? r->attempt->end : ATTEMPT_NO_MEMORY);
	}
}

/*
 * Whether the guard lets a request go on; if not, the request ends, or waits
 * for its batch's probe.  The doctor's request always goes on: it is there to
 * find out.
 */
static bool
is_let_through(Request *r, int64 now)
{
	Batch	   *batch = r->batch;
	AttemptEnd	refusal = r->deadline_us == 0 ? ATTEMPT_SUSPENDED : r->outcome.result;
	bool		will_retry = r->outcome.n_attempts > 0 && !r->retry.is_repeat;
	bool		may_go = true;

	if (r->exam)
		return true;
	if (r->was_asked || r->was_held || batch->probe)
		may_go = sgt_may_go_on(batch->guarded, &batch->limits, &r->watch, will_retry,
							   now, &r->outcome.suspension);
	if (!may_go && !r->was_asked && batch->probe)
	{
		r->was_held = true;
		dlist_push_tail(&batch->held, &r->queue_node);
		return false;
	}
	if (may_go && !r->was_asked)
		may_go = sgt_ask_guard(batch->guarded, &batch->limits,
							   batch->presence == PRESENCE_TURNED_AWAY, now,
							   &r->watch, &refusal, &r->outcome.suspension);
	r->was_asked = true;
	if (!may_go)
	{
		finish(r, refusal);
		return false;
	}

	/* perhaps only the old connections do not work */
	r->retry.is_fresh |= r->watch.is_probe;
	sgt_distrust_connections(r->watch.suspect_us);
	if (r->watch.is_probe && !batch->has_probed)
		batch->probe = r;
	batch->has_probed |= r->watch.is_probe;
	return true;
}

/*
 * Starts an attempt; false if that is not possible.  Then the attempt's "end"
 * is the reason, and there is no attempt if memory is short.
 */
static bool
start(Request *r, int64 now)
{
	Batch	   *batch = r->batch;
	AttemptOptions options = {
		.target = batch->target,
		.url = batch->url,
		.body = r->body,
		.connect_timeout_ms = batch->limits.connect_timeout_ms,
		.is_fresh = r->retry.is_fresh,
		.is_exam = r->exam != NULL,

		/*
		 * Without TLS there is no HTTP/2 to wait for.  And once a connection
		 * has failed, no request waits for another's: one that hangs must not
		 * use up the time of those behind it.
		 */
		.wait_for_others = batch->target->is_https && !batch->connect_failed
	};

	sgt_begin_outcome(&r->outcome);
	r->outcome.n_attempts += !r->retry.is_repeat;
	if (r->deadline_us == 0)
		r->deadline_us = now + batch->limits.timeout_ms * INT64CONST(1000);
	if (r->attempt == NULL)
		r->attempt = sgt_take_attempt(r);
	return r->attempt != NULL && sgt_start_attempt(r->attempt, &options);
}

/* Collects the attempts that have ended; true if any socket was ready. */
static bool
collect_ended(bool read_sockets)
{
	bool		any_ready = sgt_perform(read_sockets, n_pending);
	Attempt    *a;

	while ((a = sgt_next_ended()) != NULL)
		note_end(a->owner);
	return any_ready;
}

static void
note_end(Request *r)
{
	stop_timer(r);
	r->state = REQUEST_ENDED;
	n_running--;
	dlist_push_tail(&ended, &r->queue_node);
}

/*
 * Reads all that has arrived, then ends what is still overdue.  An answer
 * that arrived in time counts, no matter how late the process reads it.
 */
static void
expire_overdue(void)
{
	bool		any_ready = true;
	int64		now = sgt_now_us();

	for (int i = 0; i < MAX_LATE_TURNS && any_ready &&
		 sgt_now_us() - now < MAX_LATE_US; i++)
	{
		sgt_check_for_interrupts();
		sgt_begin_turn();
		any_ready = collect_ended(true);
		sgt_end_turn();
	}

	/* the guard has to know of all answers before it judges silence */
	driven_us = now = sgt_now_us();
	settle_ended();
	if (sgt_now_us() - now > MAX_GAP_US)
		return;					/* the next turn goes on, and sees the gap */
	sgt_begin_turn();
	while (!dlist_is_empty(&overdue))
	{
		Request    *r = dlist_head_element(Request, queue_node, &overdue);
		bool		is_timed_out = now >= r->deadline_us;
		int64		look_us = NEVER;

		/* the doctor waits: it is there to find out */
		if (!is_timed_out &&
			(r->exam || !sgt_look_at_guard(r->batch->guarded, &r->batch->limits,
										   r->attempt, &r->watch, now, &look_us)))
		{
			set_timer(r, Min(r->deadline_us, look_us));
			if (r->batch->probe == r)
				ask_for_held(r->batch);
			continue;
		}
		sgt_stop_attempt(r->attempt,
						 is_timed_out ? ATTEMPT_TIMED_OUT : ATTEMPT_SILENT);
		note_end(r);
	}
	sgt_end_turn();
}

/* Decides what happens to requests whose attempt has ended. */
static void
settle_ended(void)
{
	bool		has_dropped = false;

	while (!dlist_is_empty(&ended))
	{
		Request    *r = dlist_head_element(Request, queue_node, &ended);
		int64		resume_us;

		/* these may raise, while the request is still in the list */
		sgt_report_guard();
		if (message_level_is_interesting(DEBUG1))
		{
			/* a client may be slow to read it: this session does not wait */
			step_all_aside();
			sgt_report_attempt(r->attempt, r->tag, r->outcome.n_attempts);
			come_back();
		}
		dlist_delete(&r->queue_node);
		if (start_again(r))
			continue;
		observe(r);
		if (wait_for_descriptor(r, &has_dropped))
			continue;
		sgt_end_watch(r->batch->guarded, &r->watch);
		resume_us = time_to_go_on(r);
		if (resume_us == NEVER)
			finish(r, r->outcome.result);
		else
		{
			r->state = REQUEST_PAUSED;
			set_timer(r, resume_us);
		}
	}
	sgt_report_guard();
}

/* Keeps what is known about the attempt. */
static void
observe(Request *r)
{
	const Attempt *a = r->attempt;

	sgt_observe_attempt(&r->outcome, a, r->batch->success_status,
						r->retry.is_repeat);
	r->batch->has_sent |= a->n_sent > 0;
	if (a->end == ATTEMPT_NOT_CONNECTED || a->end == ATTEMPT_CONNECT_TIMED_OUT)
		r->batch->connect_failed = true;
	if (r->exam)
		sgt_examine_attempt(a, r->exam);
}

/*
 * Requeues a request that was not sent because its connection was unusable;
 * false if that is not the case.  The request cannot meet that connection
 * again: libcurl has closed it, or others use it, and then it gets a new one.
 */
static bool
start_again(Request *r)
{
	if (!r->attempt->has_strayed || r->attempt->n_sent > 0)
		return false;
	r->retry.is_fresh |= r->attempt->is_condemned;
	undo_attempt(r);
	if (r->batch->is_stopped)
		sgt_take_back_request(r);
	return true;
}

/*
 * Requeues a request that got no descriptor; false if that would not help.
 * It may have been sent before, over a connection that the server had closed,
 * so that libcurl needed a new one.  "has_dropped" tells whether idle
 * connections have already been closed for another request, which made room
 * for this one, too.
 */
static bool
wait_for_descriptor(Request *r, bool *has_dropped)
{
	if (r->outcome.result != ATTEMPT_NO_DESCRIPTOR || r->batch->is_stopped)
		return false;

	/* other requests hold them: run fewer at a time */
	if (n_running > 0)
		max_running = n_running;
	else
	{
		/* only idle connections hold them, maybe to other hosts */
		if (!*has_dropped)
			*has_dropped = sgt_drop_idle_connections();
		if (!*has_dropped)
			return false;
	}

	if (r->attempt->n_sent > 0)
	{
		tell_guard(r, ATTEMPT_ABANDONED);
		r->retry.is_repeat = r->retry.is_fresh = true;
	}
	undo_attempt(r);
	return true;
}

/* Requeues a request as if its last attempt had not been made. */
static void
undo_attempt(Request *r)
{
	r->outcome.n_attempts -= !r->retry.is_repeat;
	if (r->outcome.n_attempts == 0)
		r->deadline_us = 0;
	make_ready(r);
}

/*
 * When the request whose attempt has ended gets another one; NEVER if this
 * was the last.  The doctor's exam and the guard's probe get only one.
 */
static int64
time_to_go_on(Request *r)
{
	Batch	   *batch = r->batch;
	int64		resume_us = NEVER;

	if (!batch->is_stopped)
		resume_us = sgt_time_to_repeat(&r->retry, r->attempt, r->deadline_us);
	if (resume_us != NEVER)
	{
		tell_guard(r, ATTEMPT_ABANDONED);
		r->retry.is_repeat = true;
		return resume_us;
	}

	tell_guard(r, r->outcome.result);
	if (batch->is_stopped || r->exam || r->watch.is_probe)
		return NEVER;
	return sgt_time_to_retry(&r->retry, r->attempt, r->outcome.result,
							 r->outcome.n_attempts, r->deadline_us,
							 &batch->limits, batch->guarded);
}

/*
 * Tells the guard about an attempt that has ended.  One that is repeated, or
 * whose owner is gone, counts as abandoned: how it ended says nothing, but
 * what was sent was sent.
 */
static void
tell_guard(Request *r, AttemptEnd result)
{
	bool		is_retry = r->outcome.n_attempts > 1 && !r->retry.is_repeat;

	sgt_tell_guard(r->batch->guarded, &r->batch->limits, r->attempt, result,
				   is_retry);
}

/*
 * States
 */

/*
 * Queues a request.  If it was started before, its deadline counts in the
 * queue, too: it may wait a long time for a descriptor.
 */
static void
make_ready(Request *r)
{
	r->state = REQUEST_READY;
	dlist_push_tail(&ready, &r->queue_node);
	if (r->deadline_us != 0)
		set_timer(r, r->deadline_us);
}

static void
finish(Request *r, AttemptEnd result)
{
	stop_timer(r);
	sgt_end_watch(r->batch->guarded, &r->watch);
	r->outcome.result = result;
	r->state = REQUEST_DONE;
	n_pending--;
	dlist_delete(&r->node);
	dlist_push_tail(&r->batch->done, &r->node);

	if (r->batch->probe == r)
	{
		r->batch->probe = NULL;
		ask_for_held(r->batch);
	}
}

/* Lets the guard decide again on the requests that are held. */
static void
ask_for_held(Batch *batch)
{
	while (!dlist_is_empty(&batch->held))
		dlist_push_tail(&ready, dlist_pop_head_node(&batch->held));
}

/*
 * Timers
 */

static void
set_timer(Request *r, int64 wake_us)
{
	stop_timer(r);
	sgt_set_timer(&r->timer, wake_us);
}

static void
stop_timer(Request *r)
{
	if (r->is_overdue)
		dlist_delete(&r->queue_node);
	r->is_overdue = false;
	sgt_stop_timer(&r->timer);
}

/* When the next turn is due, even if nothing arrives. */
static int64
next_wake(void)
{
	Timer	   *timer = sgt_get_first_timer();

	if (!dlist_is_empty(&ready) && n_running < max_running)
		return 0;
	return timer ? timer->wake_us : NEVER;
}
