/*-------------------------------------------------------------------------
 * error.c
 *		An error that may be raised, or become a row of a batch.
 *
 * It does not know what went wrong.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "error.h"
#include "messages.h"

/*
 * Fills in the SQLSTATE and the message, translated, in the current memory
 * context; there is no DETAIL and no HINT yet.  Returns false, which is what
 * most callers return then.
 */
bool
sgt_set_error(CallError *error, int sqlstate, const char *format,...)
{
	StringInfoData message;
	va_list		args;
	int			needed;

	initStringInfo(&message);
	for (;;)
	{
		va_start(args, format);
		needed = appendStringInfoVA(&message, _(format), args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	error->sqlstate = sqlstate;
	error->message = message.data;
	error->detail = NULL;
	error->hint = NULL;
	return false;
}

CallError  *
sgt_copy_error(const CallError *error)
{
	CallError  *copy = palloc(sizeof(CallError));

	copy->sqlstate = error->sqlstate;
	copy->message = pstrdup(error->message);
	copy->detail = error->detail ? pstrdup(error->detail) : NULL;
	copy->hint = error->hint ? pstrdup(error->hint) : NULL;
	return copy;
}

void
sgt_raise_error(const CallError *error)
{
	ereport(ERROR,
			(errcode(error->sqlstate),
			 errmsg_internal("%s", error->message),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

void
sgt_raise_out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("out of memory")));
}

void	   *
sgt_alloc_or_null(size_t size)
{
	return palloc_extended(size, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
}
