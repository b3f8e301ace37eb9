/*-------------------------------------------------------------------------
 * drive.h
 *		All requests of the backend, driven by whoever waits.
 *
 * For batch.c.  tokens.c and scan.c also say when the owner of a batch does
 * something else, and let requests go on meanwhile.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_DRIVE_H
#define SGT_DRIVE_H

#include "postgres.h"

#include "lib/ilist.h"
#include "utils/resowner.h"

#include "attempt.h"
#include "exam.h"
#include "guard.h"
#include "outcome.h"
#include "retry.h"
#include "target.h"
#include "timer.h"

typedef enum RequestState
{
	REQUEST_READY,				/* in the queue of those to be started, or
								 * held */
	REQUEST_RUNNING,			/* the engine has its attempt */
	REQUEST_ENDED,				/* its attempt has ended; not settled yet */
	REQUEST_PAUSED,				/* before the next attempt */
	REQUEST_DONE				/* has its outcome */
} RequestState;

/* A request.  The caller who submitted it may only read it. */
typedef struct Request
{
	int			tag;			/* the caller's */
	Outcome		outcome;		/* of the last attempt; valid when done */
	AttemptExam *exam;			/* how far it got; NULL: nobody asked */

	struct Batch *batch;
	dlist_node	node;			/* in one of the batch's lists */
	RequestState state;
	char	   *body;
	Attempt    *attempt;		/* NULL: none has begun */
	int64		deadline_us;	/* 0: not started yet */
	Retry		retry;

	bool		was_held;		/* for its batch's probe, whose result counts
								 * for it, too */
	bool		was_asked;		/* the guard has decided on it */
	bool		is_counted;		/* in the guard's statistics */
	GuardWatch	watch;

	dlist_node	queue_node;		/* of those ready, held, overdue, or ended */
	Timer		timer;
	bool		is_overdue;		/* its timer has fired: it is in "overdue" */
} Request;

/*
 * Whether the guard counts a batch's session as inside a call.  A batch that
 * is used comes inside, unless it is turned away, or is the doctor's.
 */
typedef enum Presence
{
	PRESENCE_OUTSIDE = 0,		/* at first, and while its owner does
								 * something else */
	PRESENCE_ASIDE,				/* outside for a moment: it is not turned away
								 * when it comes back */
	PRESENCE_INSIDE,
	PRESENCE_TURNED_AWAY,		/* this session was one too many */
	PRESENCE_EXEMPT				/* it always goes on, and keeps nobody out */
} Presence;

/* One caller's requests to one URL; batch.c owns it. */
typedef struct Batch
{
	MemoryContext context;		/* holds it and its requests */
	MemoryContextCallback callback; /* abandons it */
	ResourceOwner owner;		/* its failure ends the batch; NULL: it is
								 * gone */
	dlist_node	node;			/* in open_batches */
	Target	   *target;			/* pinned */
	Guarded    *guarded;		/* what all sessions know of it; NULL: nothing */
	Presence	presence;		/* in the guard */
	Limits		limits;
	const char *url;
	int			success_status; /* any other is an answer by itself */
	bool		has_engine;
	bool		is_stopped;
	bool		connect_failed; /* do not wait for others' connections */
	bool		has_sent;		/* a request, and its attempt has ended */
	bool		has_probed;		/* while requests were suspended */
	Request    *probe;			/* the first; NULL: it has ended */
	dlist_head	held;			/* ready, but for the probe's result */
	dlist_head	pending;		/* not done */
	dlist_head	done;			/* not handed out yet */
	dlist_head	handed_out;
} Batch;

/* These may raise, including what interrupts raise. */
extern void sgt_drive(Batch *batch);
extern void sgt_poll_requests(void);
extern void sgt_check_for_interrupts(void);

/* These raise nothing. */
extern int	sgt_count_pending(void);
extern void sgt_add_batch(Batch *batch);
extern Batch *sgt_find_batch_of(ResourceOwner owner);
extern void sgt_remove_batch(Batch *batch);
extern void sgt_rest_batch(Batch *batch);
extern void sgt_step_aside(Batch *batch);
extern void sgt_add_request(Request *r);

/* These raise nothing, and are for turns if the request may be running. */
extern void sgt_remove_request(Request *r);
extern void sgt_take_back_request(Request *r);

#endif							/* SGT_DRIVE_H */
