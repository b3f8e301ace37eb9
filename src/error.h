/*-------------------------------------------------------------------------
 * error.h
 *		An error that may be raised, or become a row of a batch.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ERROR_H
#define SGT_ERROR_H

#include "postgres.h"

#include "compat.h"

/* What an ereport() needs. */
typedef struct CallError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
} CallError;

extern bool sgt_set_error(CallError *error, int sqlstate,
						  const char *format,...) pg_attribute_printf(3, 4);
extern void sgt_raise_error(const CallError *error) pg_attribute_noreturn();
extern CallError *sgt_copy_error(const CallError *error);
extern void sgt_raise_out_of_memory(void) pg_attribute_noreturn();

/* For plain C, which must not raise: NULL if memory is short. */
extern void *sgt_alloc_or_null(size_t size);

#endif							/* SGT_ERROR_H */
