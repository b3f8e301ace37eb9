/*-------------------------------------------------------------------------
 * retry.h
 *		Whether a request whose attempt has failed gets another one, and when.
 *
 * For drive.c.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_RETRY_H
#define SGT_RETRY_H

#include "postgres.h"

#include "attempt.h"
#include "guard.h"
#include "target.h"

/* How the next attempt differs from the last. */
typedef struct Retry
{
	bool		is_fresh;		/* use no kept-alive connection */
	bool		is_repeat;		/* send the last attempt's request again */
	int			n_refusals;		/* refusals after which it was sent again */
	bool		was_mixed_up;	/* it was sent again for that reason */
} Retry;

/* Both return the time of the next attempt, or NEVER; they raise nothing. */
extern int64 sgt_time_to_repeat(Retry *retry, const Attempt *a,
								int64 deadline_us);
extern int64 sgt_time_to_retry(Retry *retry, const Attempt *a,
							   AttemptEnd result, int n_attempts,
							   int64 deadline_us, const Limits *limits,
							   Guarded *guarded);

#endif							/* SGT_RETRY_H */
