/*-------------------------------------------------------------------------
 * libcurl.c
 *		libcurl as a whole: whether a backend can use it.
 *
 * A process has one libcurl, which other modules may use, too, and which the
 * first of them sets up.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "libcurl.h"
#include "watchdog.h"

static void check_libcurl(void);
static bool uses_server_memory(void);

/*
 * Makes libcurl ready, once in a process; otherwise raises an error.
 *
 * This is for the first call and not for _PG_init(), which may run in the
 * postmaster, whose children must not inherit a library with threads.
 */
void
sgt_initialize_libcurl(void)
{
	static bool is_initialized = false;
	CURLcode	code;

	if (is_initialized)
		return;
	check_libcurl();

	/* libcurl would write TLS's session keys into the file that it names */
	unsetenv("SSLKEYLOGFILE");

	sgt_block_signals();
	code = curl_global_init(CURL_GLOBAL_DEFAULT);
	sgt_restore_signals();
	if (code != CURLE_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("libcurl could not be initialized")));
	if (uses_server_memory())
	{
		curl_global_cleanup();
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("libcurl cannot be used"),
				 errdetail("Another module makes it use PostgreSQL's memory contexts."),
				 errhint("Use the modules in different sessions, or call this one first.")));
	}
	is_initialized = true;
}

static void
check_libcurl(void)
{
	const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);

	if (info->version_num < MIN_LIBCURL_VERSION ||
		!(info->features & CURL_VERSION_ASYNCHDNS) ||
		!(info->features & CURL_VERSION_SSL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("libcurl %s cannot be used", info->version),
				 errdetail("Version 7.87 or newer is needed, with TLS and name look-ups that can be interrupted.")));
}

/*
 * Whether libcurl takes its memory from a memory context, because another
 * module has set it up like that.  Then it crashes sooner or later, for its
 * threads use memory, too, and its connections outlive any transaction.
 *
 * libcurl does not say, so we let it copy a text that gets a block of its own.
 */
static bool
uses_server_memory(void)
{
	Size		size = MemoryContextMemAllocated(TopMemoryContext, true);
	char		block[16 * 1024];
	struct curl_slist *list;
	bool		has_grown;

	memset(block, 'x', sizeof(block) - 1);
	block[sizeof(block) - 1] = '\0';
	list = curl_slist_append(NULL, block);
	has_grown = MemoryContextMemAllocated(TopMemoryContext, true) > size;
	curl_slist_free_all(list);
	return has_grown;
}
