/*-------------------------------------------------------------------------
 * batch.c
 *		One caller's requests: submitted, waited for, and released.
 *
 * It knows which requests belong together, and that they end with their
 * memory context.  It leaves running them to drive.c, and knows nothing about
 * tokens or SQL types.
 *
 * Nothing in abandon() may raise: a memory context is going away.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "batch.h"
#include "engine.h"
#include "messages.h"

static void end_with_owner(ResourceReleasePhase phase, bool is_commit,
						   bool is_top, void *arg);
static void abandon(void *arg);
static void forget(Request *r);

/*
 * Batches
 */

/*
 * Raises 55000 where nothing could end a wait: PostgreSQL calls a data type's
 * functions even while it has an index's page locked.
 */
void
sgt_require_interrupts(void)
{
	if (InterruptHoldoffCount > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("guest tokens cannot be requested while interrupts are held off"),
				 errhint("Do not request them in a function that a data type or an index uses.")));
}

/*
 * Begins a batch of requests to one URL of a target, which is pinned as long
 * as the batch lives.  A status other than "success_status" is an answer, no
 * matter how the response goes on.
 */
Batch	   *
sgt_begin_batch(Target *target, const Limits *limits, const char *url,
				int success_status)
{
	static bool has_callback = false;
	bool		has_engine;
	Guarded    *guarded;
	MemoryContext context;
	Batch	   *batch;

	sgt_require_interrupts();
	has_engine = sgt_open_engine(target->trust_number);
	guarded = sgt_find_guarded(target);
	context = AllocSetContextCreate(CurrentMemoryContext,
									"sw_guest_token batch",
									ALLOCSET_DEFAULT_SIZES);
	batch = MemoryContextAllocZero(context, sizeof(Batch));
	if (!has_callback)
		RegisterResourceReleaseCallback(end_with_owner, NULL);
	has_callback = true;

	batch->context = context;
	batch->owner = CurrentResourceOwner;
	batch->limits = *limits;
	batch->url = MemoryContextStrdup(context, url);
	batch->success_status = success_status;
	batch->has_engine = has_engine;
	dlist_init(&batch->held);
	dlist_init(&batch->pending);
	dlist_init(&batch->done);
	dlist_init(&batch->handed_out);

	/* from here on nothing raises */
	batch->target = sgt_pin_target(target);
	batch->guarded = guarded;
	sgt_add_batch(batch);
	batch->callback.func = abandon;
	batch->callback.arg = batch;
	MemoryContextRegisterResetCallback(context, &batch->callback);
	return batch;
}

/* Ends a batch.  What has no outcome yet is abandoned. */
void
sgt_end_batch(Batch *batch)
{
	MemoryContextDelete(batch->context);
}

/*
 * A failed transaction keeps its memory until the client rolls it back, which
 * may take a while.  So its batches already end when its resources are
 * released.
 */
static void
end_with_owner(ResourceReleasePhase phase, bool is_commit, bool is_top,
			   void *arg)
{
	Batch	   *batch;

	(void) is_top;
	(void) arg;
	if (phase != RESOURCE_RELEASE_BEFORE_LOCKS)
		return;
	Assert(CurrentResourceOwner != NULL);	/* else the loop would not end */
	while ((batch = sgt_find_batch_of(CurrentResourceOwner)) != NULL)
	{
		batch->owner = NULL;
		if (!is_commit)
			abandon(batch);
	}
}

/*
 * Called when the batch's memory is about to be freed, or earlier, in
 * whatever state the batch is.
 */
static void
abandon(void *arg)
{
	Batch	   *batch = arg;
	dlist_head *lists[] = {&batch->pending, &batch->done, &batch->handed_out};
	bool		needs_turn = !dlist_is_empty(&batch->pending);	/* one may run */
	dlist_iter	iter;

	if (batch->target == NULL)	/* it has ended with its owner */
		return;
	if (needs_turn)
		sgt_begin_turn();
	for (int i = 0; i < (int) lengthof(lists); i++)
	{
		dlist_foreach(iter, lists[i])
			forget(dlist_container(Request, node, iter.cur));
	}
	if (needs_turn)
		sgt_end_turn();
	sgt_unpin_target(batch->target);
	batch->target = NULL;
	sgt_remove_batch(batch);
}

/*
 * Lets go of a request that is about to be freed.  If it may be running, this
 * must happen in a turn.
 */
static void
forget(Request *r)
{
	sgt_remove_request(r);
	/* unless it has been judged and counted, it counts as cancelled */
	r->outcome.result = ATTEMPT_ABANDONED;
	sgt_count_request(r, ERRCODE_QUERY_CANCELED);
	if (r->attempt)
		sgt_release_attempt(r->attempt);
}

/* Whether sgt_wait_for_any() would not have to wait. */
bool
sgt_is_any_done(const Batch *batch)
{
	return !dlist_is_empty((dlist_head *) &batch->done);
}

/* Whether any request has been sent. */
bool
sgt_has_batch_sent(Batch *batch)
{
	dlist_iter	iter;

	dlist_foreach(iter, &batch->pending)
	{
		const Request *r = dlist_container(Request, node, iter.cur);

		if (r->attempt && r->attempt->n_sent > 0)
			return true;
	}
	return batch->has_sent;
}

/*
 * Takes back attempts that have not been sent: their requests end with the
 * outcome that they have.  Requests that have been sent go on, but get no
 * further attempt.  No more requests may be submitted.
 */
void
sgt_stop_batch(Batch *batch)
{
	dlist_mutable_iter iter;

	batch->is_stopped = true;
	sgt_begin_turn();
	dlist_foreach_modify(iter, &batch->pending)
		sgt_take_back_request(dlist_container(Request, node, iter.cur));
	sgt_end_turn();
}

/*
 * Requests
 */

/*
 * Adds a request, a POST of JSON.  The doctor's exam is sent once, over a
 * connection of its own.
 */
Request    *
sgt_submit_request(Batch *batch, const char *body, int tag, bool is_exam)
{
	Request    *r = MemoryContextAllocZero(batch->context, sizeof(Request));

	Assert(!batch->is_stopped);
	r->body = MemoryContextStrdup(batch->context, body);
	r->tag = tag;
	if (is_exam)
	{
		r->exam = MemoryContextAllocZero(batch->context, sizeof(AttemptExam));
		batch->presence = PRESENCE_EXEMPT;
	}
	r->retry.is_fresh = is_exam;
	r->batch = batch;
	sgt_begin_outcome(&r->outcome);
	sgt_add_request(r);
	return r;
}

/* Gives back a request that is done. */
void
sgt_release_request(Request *r)
{
	Assert(r->state == REQUEST_DONE);
	forget(r);
	dlist_delete(&r->node);
	pfree(r->body);
	pfree(r);
}

/*
 * Counts a request as its owner has judged it; "sqlstate" is 0 if it brought
 * what was asked for.  The doctor's requests do not ask the guard, and are
 * not counted.
 */
void
sgt_count_request(Request *r, int sqlstate)
{
	int64		took_us = 0;

	/* since the request was started, without the time that does not count */
	if (r->attempt && r->deadline_us != 0)
		took_us = r->attempt->ended_us - r->deadline_us +
			r->batch->limits.timeout_ms * INT64CONST(1000);
	if (r->was_asked && !r->is_counted)
		sgt_count_call(r->batch->guarded, r->outcome.result,
					   r->outcome.status, sqlstate, Max(took_us, 0));
	r->is_counted = true;
}

/* Waits until the request is done. */
void
sgt_wait_for_request(Request *r)
{
	while (r->state != REQUEST_DONE)
		sgt_drive(r->batch);
	dlist_delete(&r->node);
	dlist_push_tail(&r->batch->handed_out, &r->node);
}

/*
 * Waits until any request is done, and hands out the one that finished first;
 * NULL if there is none.
 */
Request    *
sgt_wait_for_any(Batch *batch)
{
	Request    *r;

	for (;;)
	{
		/* also between outcomes: judging one may take milliseconds */
		sgt_check_for_interrupts();
		if (!dlist_is_empty(&batch->done))
			break;
		if (dlist_is_empty(&batch->pending))
			return NULL;
		sgt_drive(batch);
	}
	r = dlist_container(Request, node, dlist_pop_head_node(&batch->done));
	dlist_push_tail(&batch->handed_out, &r->node);
	return r;
}
