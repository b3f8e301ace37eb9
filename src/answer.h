/*-------------------------------------------------------------------------
 * answer.h
 *		From a request's outcome to a pair of tokens, or to an error.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ANSWER_H
#define SGT_ANSWER_H

#include "postgres.h"

#include "batch.h"
#include "codec.h"
#include "error.h"
#include "target.h"

/* The only status that comes with tokens. */
#define SUCCESS_STATUS		201

/* What all requests of a call share; known to answer.c and the files above. */
typedef struct Call
{
	Target	   *target;
	Limits		limits;
	SecretList	secrets;		/* the target's and the call's own */
	bool		is_check;		/* made by sw_guest_token_check(), so no hint
								 * names that */
} Call;

/* These allocate in the current memory context. */
extern bool sgt_judge_outcome(const Call *call, const Outcome *outcome,
							  TokenPair *pair, CallError *error);
extern void sgt_describe_outcome(const Call *call, const Outcome *outcome,
								 CallError *error);
extern char *sgt_show_text(const SecretList *secrets, const char *str,
						   size_t length);

#endif							/* SGT_ANSWER_H */
