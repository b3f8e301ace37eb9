/*-------------------------------------------------------------------------
 * outcome.h
 *		From a request's outcome to a pair of tokens, or to an error.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_OUTCOME_H
#define SGT_OUTCOME_H

#include "postgres.h"

#include "codec.h"
#include "compat.h"
#include "http.h"
#include "settings.h"

/* What all requests of a call share. */
typedef struct Call
{
	const Settings *settings;
	SecretList	secrets;
	const char *url;
	bool		is_check;		/* the doctor's: its hints do not name it */
} Call;

/* These allocate in the current memory context. */
extern bool sgt_judge_outcome(const Call *call, const HttpOutcome *outcome,
							  TokenPair *pair, CallError *error);
extern void sgt_describe_outcome(const Call *call, const HttpOutcome *outcome,
								 CallError *error);
extern char *sgt_show_text(const Settings *settings, const char *str);
extern void sgt_set_error(CallError *error, int sqlstate,
						  const char *format,...) pg_attribute_printf(3, 4);

extern void sgt_raise_error(const CallError *error) pg_attribute_noreturn();
extern void sgt_raise_out_of_memory(void) pg_attribute_noreturn();

/* The codec's allocator, which does not raise. */
extern void *sgt_alloc_or_null(size_t size);

#endif							/* SGT_OUTCOME_H */
