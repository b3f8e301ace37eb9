/*-------------------------------------------------------------------------
 * compat.h
 *		The differences between PostgreSQL 15 and later, one shim each.
 *
 * Each shim names the version that lets us delete it.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_COMPAT_H
#define SGT_COMPAT_H

#include "postgres.h"

#include "fmgr.h"
#include "storage/latch.h"
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

#endif							/* SGT_COMPAT_H */
