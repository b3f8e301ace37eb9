/*-------------------------------------------------------------------------
 * outcome.h
 *		How a request ended, for its owner.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_OUTCOME_H
#define SGT_OUTCOME_H

#include "postgres.h"

#include "attempt.h"
#include "guard.h"

/* How a request ended.  What it points to lives until its release. */
typedef struct Outcome
{
	AttemptEnd	result;			/* the last attempt's, mostly */
	int			status;			/* the last that came, 0 if none did */
	int			n_attempts;
	const char *phase;			/* what it was doing when time ran out */
	const char *content_type;	/* NULL: none */
	const char *body;
	size_t		body_length;
	const char *reason;			/* libcurl's words, may be empty */
	BreakerState suspension;	/* why requests are suspended, if so */
} Outcome;

/* These raise nothing. */
extern void sgt_begin_outcome(Outcome *outcome);
extern void sgt_observe_attempt(Outcome *outcome, const Attempt *a,
								int success_status, bool is_repeat);

#endif							/* SGT_OUTCOME_H */
