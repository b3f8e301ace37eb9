/*-------------------------------------------------------------------------
 * batch.h
 *		One caller's requests: submitted, waited for, and released.
 *
 * A caller begins a batch, submits requests to it, waits for them in any
 * order, looks at their outcomes, and ends it:
 *
 *		batch = sgt_begin_batch(target, &limits, url, 201);
 *		request = sgt_submit_request(batch, body, 1, false);
 *		sgt_wait_for_request(request);
 *		... request->outcome ...
 *		sgt_end_batch(batch);
 *
 * A batch lives in a memory context of its own, a child of the context that
 * was current when it began.  When it ends, or that context is reset or
 * deleted, requests still in flight are abandoned.  An error must not leave a
 * batch behind that later calls would drive, so the parent has to go before
 * anything else can run.  That is true of CurTransactionContext, but not of a
 * portal's contexts, which may live on when a subtransaction fails: scan.c,
 * whose batches live there, abandons them itself.  As a failed transaction
 * keeps its memory until it is rolled back, the batch also ends when the
 * resource owner that was current is released after a failure.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_BATCH_H
#define SGT_BATCH_H

#include "postgres.h"

#include "drive.h"
#include "target.h"

/* These may raise; while they wait, interrupts may, too. */
extern void sgt_require_interrupts(void);
extern Batch *sgt_begin_batch(Target *target, const Limits *limits,
							  const char *url, int success_status);
extern Request *sgt_submit_request(Batch *batch, const char *body, int tag,
								   bool is_exam);
extern void sgt_wait_for_request(Request *request);
extern Request *sgt_wait_for_any(Batch *batch);

/* These raise nothing. */
extern bool sgt_is_any_done(const Batch *batch);
extern bool sgt_has_batch_sent(Batch *batch);
extern void sgt_count_request(Request *request, int sqlstate);
extern void sgt_stop_batch(Batch *batch);
extern void sgt_release_request(Request *request);
extern void sgt_end_batch(Batch *batch);

#endif							/* SGT_BATCH_H */
