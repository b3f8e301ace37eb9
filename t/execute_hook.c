/*-------------------------------------------------------------------------
 * execute_hook.c
 *		Reports which functions the executor is about to call, as it would
 *		tell a security module.
 *
 * The tests build and load it; it is never installed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static object_access_hook_type next_hook = NULL;

static void
note_execution(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id,
			   void *arg)
{
	if (next_hook)
		next_hook(access, class_id, object_id, sub_id, arg);
	if (access == OAT_FUNCTION_EXECUTE && class_id == ProcedureRelationId)
	{
		char	   *name = get_func_name(object_id);

		if (name != NULL && strstr(name, "guest_token") != NULL)
			ereport(NOTICE, (errmsg_internal("executes %s", name)));
	}
}

void
_PG_init(void)
{
	next_hook = object_access_hook;
	object_access_hook = note_execution;
}
