/*-------------------------------------------------------------------------
 * outcome.c
 *		How a request ended, for its owner.
 *
 * It knows which facts about a finished attempt matter, and decides nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "outcome.h"

/*
 * To be called before an attempt, which reuses the buffers of the last one.
 * What is known of the last one otherwise, such as its status, counts if no
 * other attempt ends.
 */
void
sgt_begin_outcome(Outcome *outcome)
{
	outcome->content_type = NULL;
	outcome->body = NULL;
	outcome->body_length = 0;
	outcome->reason = "";
}

/*
 * To be called after an attempt.  A status other than "success_status" is an
 * answer, no matter how the response goes on.
 */
void
sgt_observe_attempt(Outcome *outcome, const Attempt *a, int success_status,
					bool is_repeat)
{
	outcome->result = a->end;
	if (a->status != 0)
		outcome->status = a->status;
	outcome->phase = a->phase;
	outcome->content_type = a->content_type;
	outcome->body = a->body;
	outcome->body_length = a->body_length;
	outcome->reason = a->reason;

	/* a refusal is an answer, no matter how its body ends */
	if (a->status != 0 && a->status != success_status &&
		a->end != ATTEMPT_NO_MEMORY && a->end != ATTEMPT_ENGINE_FAILED)
		outcome->result = ATTEMPT_ANSWERED;

	/* what was sent before, as part of the same attempt, was not answered */
	if (is_repeat && (a->end == ATTEMPT_NOT_CONNECTED ||
					  a->end == ATTEMPT_NO_LOOK_UP ||
					  a->end == ATTEMPT_CONNECT_TIMED_OUT))
		outcome->result = ATTEMPT_BROKEN;
}
