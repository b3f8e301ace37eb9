/*-------------------------------------------------------------------------
 * other_module.c
 *		What some modules do to the process that they share with others.
 *
 * The tests build and load it; it is never installed.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <signal.h>
#include <sys/time.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(use_server_memory);
PG_FUNCTION_INFO_V1(reset_profiler);

static MemoryContext context = NULL;

static void *
get_memory(size_t size)
{
	return MemoryContextAlloc(context, size);
}

static void *
get_zeros(size_t n, size_t size)
{
	return MemoryContextAllocZero(context, n * size);
}

static void *
resize(void *memory, size_t size)
{
	return memory ? repalloc(memory, size) : get_memory(size);
}

static void
give_back(void *memory)
{
	if (memory)
		pfree(memory);
}

static char *
copy_text(const char *text)
{
	return MemoryContextStrdup(context, text);
}

static void
end_use(void *arg)
{
	curl_global_cleanup();
	context = NULL;
}

/* Makes libcurl use the transaction's memory until that ends. */
Datum
use_server_memory(PG_FUNCTION_ARGS)
{
	MemoryContextCallback *callback;

	context = CurTransactionContext;
	callback = MemoryContextAllocZero(context, sizeof(*callback));
	callback->func = end_use;
	MemoryContextRegisterResetCallback(context, callback);
	PG_RETURN_INT32(curl_global_init_mem(CURL_GLOBAL_DEFAULT, get_memory, give_back,
										 resize, copy_text, get_zeros));
}

/*
 * Waits until nobody's profiling timer runs, and leaves its signal as a profiler
 * does that has ended.
 */
Datum
reset_profiler(PG_FUNCTION_ARGS)
{
	struct itimerval timer;

	do
	{
		CHECK_FOR_INTERRUPTS();
		getitimer(ITIMER_PROF, &timer);
	} while (timer.it_interval.tv_sec != 0 || timer.it_interval.tv_usec != 0);
	signal(SIGPROF, SIG_DFL);
	PG_RETURN_VOID();
}
