/*-------------------------------------------------------------------------
 * compat.h
 *		The differences between PostgreSQL 15 and later, and between systems.
 *
 * Each shim of the first kind says which version must be the oldest that we
 * support before we can delete it.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_COMPAT_H
#define SGT_COMPAT_H

#include "postgres.h"

#include "common/base64.h"
#include "fmgr.h"
#include "storage/latch.h"
#include "utils/guc_tables.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

/* Until 17 is the oldest: a wait event set was owned by a memory context. */
static inline WaitEventSet *
sgt_create_wait_event_set(int n_events)
{
#if PG_VERSION_NUM >= 170000
	return CreateWaitEventSet(NULL, n_events);
#else
	return CreateWaitEventSet(TopMemoryContext, n_events);
#endif
}

/* Until 17 is the oldest: the test for such a process had another name. */
#if PG_VERSION_NUM < 170000
#include "postmaster/autovacuum.h"
#define AmAutoVacuumWorkerProcess() IsAutoVacuumWorkerProcess()
#endif

/* Until 17 is the oldest: extensions shared one wait event. */
static inline uint32
sgt_new_wait_event(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/* Until 18 is the oldest: the magic block had no name and no version. */
#if PG_VERSION_NUM >= 180000
#define SGT_MODULE_MAGIC(its_name, its_version) \
	PG_MODULE_MAGIC_EXT(.name = its_name, .version = its_version)
#else
#define SGT_MODULE_MAGIC(its_name, its_version) PG_MODULE_MAGIC
#endif

/* Until 18 is the oldest: then pg_noreturn does it, before the declaration. */
#if PG_VERSION_NUM >= 180000
#define pg_attribute_noreturn() __attribute__((noreturn))
#endif

/* Until 18 is the oldest: decoded bytes were char, not uint8. */
static inline int
sgt_b64_encode(const char *src, int length, char *dst, int size)
{
	return pg_b64_encode((const void *) src, length, dst, size);
}

static inline int
sgt_b64_decode(const char *src, int length, char *dst, int size)
{
	return pg_b64_decode(src, length, (void *) dst, size);
}

/* Until 18 is the oldest: explain.h declared what formats its output. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#endif

/* Until 18 is the oldest: a run was told whether it is the only one. */
#if PG_VERSION_NUM >= 180000
#define SGT_RUN_PARAM
#define SGT_RUN_ARG
#else
#define SGT_RUN_PARAM	, bool execute_once
#define SGT_RUN_ARG		, execute_once
#endif

/* Until 19 is the oldest: the planner was not told of EXPLAIN. */
#if PG_VERSION_NUM >= 190000
#define SGT_PLANNER_PARAM	, ExplainState *es
#define SGT_PLANNER_ARG		, es
#else
#define SGT_PLANNER_PARAM
#define SGT_PLANNER_ARG
#endif

/*
 * Keeps Memoize out of the query that is being planned.  Until 19 is the
 * oldest: the planner looked at the setting, which the caller has to restore.
 */
#if PG_VERSION_NUM >= 190000
#define SGT_FORBID_MEMOIZE(root) \
	((root)->glob->default_pgs_mask &= ~PGS_NESTLOOP_MEMOIZE)
#else
#define SGT_FORBID_MEMOIZE(root) (enable_memoize = false)
#endif

/* Until 16 is the oldest: nothing found a setting by its name. */
static inline const struct config_generic *
sgt_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, DEBUG5);
#else
	for (int i = 0; i < GetNumConfigOptions(); i++)
	{
		if (pg_strcasecmp(get_guc_variables()[i]->name, name) == 0)
			return get_guc_variables()[i];
	}
	return NULL;
#endif
}

/* Until 16 is the oldest: each kind of object had a function of its own. */
#if PG_VERSION_NUM >= 160000
#define SGT_FUNCTION_ACLCHECK(function, role, mode) \
	object_aclcheck(ProcedureRelationId, function, role, mode)
#else
#define SGT_FUNCTION_ACLCHECK(function, role, mode) \
	pg_proc_aclcheck(function, role, mode)
#endif

/* macOS has its own name for it. */
#ifdef __APPLE__
#define st_ctim st_ctimespec
#endif

#endif							/* SGT_COMPAT_H */
