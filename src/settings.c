/*-------------------------------------------------------------------------
 * settings.c
 *		The sw_guest_token.* settings, and the credentials.
 *
 * It knows what makes a setting fit for use, and sends nothing.
 *
 * 1. Settings are judged when a call uses them, and all refused with 55000,
 *    so that their order in a file does not matter.  Only what would store a
 *    secret where every role can read it is refused when it is set.
 * 2. The result is a target, which never changes.  When a setting, the token's
 *    file or the certificate authorities change, another one is made.
 * 3. No message quotes api_token, api_token_file or proxy: ordinary roles
 *    may not see them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/parallel.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "messages.h"
#include "settings.h"
#include "url.h"

#define PREFIX				"sw_guest_token"

/* Far beyond any API token. */
#define MAX_API_TOKEN_LENGTH	4096

/* One every 60 us, which is as good as no limit. */
#define MAX_TOKENS_PER_MINUTE	1000000

/* Whether the postmaster loaded the library; each backend inherits it. */
static bool is_preloaded = false;

/* The settings' values */
static char *space_name = NULL;
static char *project_id = NULL;
static char *api_token = NULL;
static char *api_token_file = NULL;
static char *base_url = NULL;
static char *ca_file = NULL;
static char *proxy = NULL;
static bool read_ahead;
static Limits limits;

/* A superuser's setting whose value was not accepted; NULL: none. */
static const char *unaccepted = NULL;

/* The target that was made from them, pinned; NULL: none yet. */
static Target *current = NULL;
static bool settings_changed = false;	/* since then */

/* The token that the file held then. */
static char file_token[MAX_API_TOKEN_LENGTH + 1];

/*
 * The token's file as it was when it was judged.  Opening and reading it for
 * each call would take 2 us more, 3 % of the CPU time of a call over TLS.
 */
static struct stat token_file;
static bool token_file_is_known = false;

/*
 * The certificate authorities as they were when a call last looked.  Parsing
 * them takes libcurl tens of milliseconds; it keeps the result as long as the
 * trust's number stays the same.
 */
static struct
{
	uint64		number;
	char	   *path;			/* NULL: none yet */
	struct stat file;
}			trust;

static bool is_given(const char *name);
static void note_acceptance(const char *name, bool was_given);
static bool check_api_token(char **newval, void **extra, GucSource source);
static bool check_proxy(char **newval, void **extra, GucSource source);
static bool is_stored_openly(GucSource source);
static void note_change(const char *newval, void *extra);
static void warn_of_placeholders(void);
static void judge_session(void);
static Target *make_target(bool with_credentials);
static void make_route(Target *target);
static void make_key(Target *target);
static void make_credentials(Target *target);
static void check_token_file(void);
static bool is_unchanged(const struct stat *known, const struct stat *st);
static bool is_settled(const struct stat *st);
static void read_token_file(char *token);
static void check_ca_file(void);
static int	open_file(const char *name, const char *path);
static const char *find_ca_file(void);
static void check_trust(void);
static void make_proxy(Target *target);
static void add_secret(Target *target, const char *str);
static const char *add_basic_secret(Target *target, const char *user,
									const char *password);
static void refuse_setting(const char *name, const char *detail,
						   const char *hint) pg_attribute_noreturn();

/* The settings that hold a text, which is empty unless set. */
static const struct
{
	const char *name;
	char	  **value;
	int			flags;
	GucStringCheckHook check;
	const char *purpose;
	const char *note;
}			strings[] = {

	{PREFIX ".space_name", &space_name, 0, NULL,
		"Sets the SignalWire space that issues the tokens.",
	"One DNS label, optionally followed by \".signalwire.com\"."},
	{PREFIX ".project_id", &project_id, 0, NULL,
	"Sets the project that authenticates the requests.", NULL},
	{PREFIX ".api_token", &api_token, GUC_SUPERUSER_ONLY, check_api_token,
	"Sets the project's API token.", NULL},
	{PREFIX ".api_token_file", &api_token_file, GUC_SUPERUSER_ONLY, NULL,
		"Sets the file that holds the project's API token.",
	"It takes precedence over \"" PREFIX ".api_token\" and is read again when it changes."},
	{PREFIX ".base_url", &base_url, 0, NULL,
		"Sets the URL that replaces that of the space.",
	"Scheme, host, port and path prefix; \"http\" only for a loopback host."},
	{PREFIX ".ca_file", &ca_file, 0, NULL,
	"Sets the file of certificate authorities to trust in place of the system's.", NULL},
	{PREFIX ".proxy", &proxy, GUC_SUPERUSER_ONLY, check_proxy,
		"Sets the URL of the proxy.",
	"If empty, the usual environment variables count."}
};

/* The settings that hold a number. */
static const struct
{
	const char *name;
	int		   *value;
	int			initial;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
	const char *purpose;
	const char *note;
}			numbers[] = {

	{PREFIX ".connect_timeout", &limits.connect_timeout_ms, 5000, 1, INT_MAX,
		PGC_USERSET, GUC_UNIT_MS,
		"Sets the maximum time for one connection attempt.",
	"Name look-up, TCP and TLS handshake together."},
	{PREFIX ".timeout", &limits.timeout_ms, 10000, 1, INT_MAX,
		PGC_USERSET, GUC_UNIT_MS,
		"Sets the maximum time for one request.",
	"Every attempt and every pause included, from when it is first sent."},
	{PREFIX ".max_retries", &limits.max_retries, 2, 0, 100, PGC_USERSET, 0,
	"Sets the maximum number of attempts after the first.", NULL},
	{PREFIX ".max_concurrency", &limits.max_concurrency, 16, 1, 256, PGC_USERSET, 0,
	"Sets the maximum number of requests that one call has in flight.", NULL},
	{PREFIX ".max_sessions", &limits.max_sessions, 16, 0, INT_MAX, PGC_SIGHUP, 0,
		"Sets the maximum number of sessions that wait for an API that is slow.",
	"0 means no limit.  Takes effect only if the server preloads the library."},
	{PREFIX ".tokens_per_minute", &limits.tokens_per_minute, 0, 0,
		MAX_TOKENS_PER_MINUTE, PGC_SUSET, 0,
		"Sets how many tokens a role that has logged in may ask for in a minute.",
	"0 means no limit.  Any other value needs a server that preloads the library."}
};

/*
 * Defines the settings; to be called once, from _PG_init().
 */
void
sgt_define_settings(void)
{
	is_preloaded = process_shared_preload_libraries_in_progress;

	for (int i = 0; i < (int) lengthof(strings); i++)
	{
		bool		was_given = is_given(strings[i].name);

		DefineCustomStringVariable(strings[i].name, strings[i].purpose,
								   strings[i].note, strings[i].value, "",
								   PGC_SUSET, strings[i].flags,
								   strings[i].check, note_change, NULL);
		note_acceptance(strings[i].name, was_given);
	}
	for (int i = 0; i < (int) lengthof(numbers); i++)
	{
		bool		was_given = is_given(numbers[i].name);

		DefineCustomIntVariable(numbers[i].name, numbers[i].purpose,
								numbers[i].note, numbers[i].value,
								numbers[i].initial, numbers[i].min,
								numbers[i].max, numbers[i].context,
								numbers[i].flags, NULL, NULL, NULL);
		if (numbers[i].context == PGC_SUSET)
			note_acceptance(numbers[i].name, was_given);
	}
	DefineCustomBoolVariable(PREFIX ".read_ahead",
							 "Makes queries read rows ahead, so that the calls of several are in flight.",
							 NULL,
							 &read_ahead, false, PGC_USERSET, GUC_EXPLAIN,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable(PREFIX ".breaker",
							 "Suspends requests while the API does not work.",
							 "Takes effect only if the server preloads the library.",
							 &limits.breaker, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved(PREFIX);
	warn_of_placeholders();
}

/*
 * Whether the server has preloaded the library.
 */
bool
sgt_is_preloaded(void)
{
	return is_preloaded;
}

/*
 * When the library is loaded, a setting gets the value that it was given
 * before.  If PostgreSQL does not accept that, the setting gets its default,
 * and there is no more than a warning.  So a mistake in the configuration file
 * would mean no limit.  And if the library is loaded late, a role could get rid
 * of a superuser's value: an option of its connection first takes the place of
 * that value, and is then not accepted.
 */
static void
note_acceptance(const char *name, bool was_given)
{
	if (was_given && !is_given(name))
		unaccepted = name;
}

static bool
is_given(const char *name)
{
	const struct config_generic *setting = sgt_find_setting(name);

	return setting && setting->reset_source != PGC_S_DEFAULT;
}

/*
 * Hooks
 */

static bool
check_api_token(char **newval, void **extra, GucSource source)
{
	(void) extra;
	if ((*newval)[0] == '\0' || !is_stored_openly(source))
		return true;

	GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	GUC_check_errmsg("parameter \"%s\" cannot be set for a role, a database or a function",
					 PREFIX ".api_token");
	GUC_check_errdetail("Every role could read it in the system catalogs.");
	GUC_check_errhint("Use \"%s\" there.", PREFIX ".api_token_file");
	return false;
}

static bool
check_proxy(char **newval, void **extra, GucSource source)
{
	const char *end;

	(void) extra;
	if (!is_stored_openly(source) || !sgt_find_proxy_password(*newval, &end))
		return true;

	GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	GUC_check_errmsg("parameter \"%s\" with a password cannot be set for a role, a database or a function",
					 PREFIX ".proxy");
	GUC_check_errdetail("Every role could read the password in the system catalogs.");
	GUC_check_errhint("Set the parameter in the configuration file.");
	return false;
}

/*
 * PGC_S_TEST is for a value on its way into the catalogs; the others are for
 * one that comes out of them, stored by a session that had not loaded the
 * library.
 */
static bool
is_stored_openly(GucSource source)
{
	return source == PGC_S_TEST || source == PGC_S_GLOBAL ||
		source == PGC_S_DATABASE || source == PGC_S_USER ||
		source == PGC_S_DATABASE_USER;
}

static void
note_change(const char *newval, void *extra)
{
	(void) newval;
	(void) extra;
	settings_changed = true;
	token_file_is_known = false;
}

/*
 * Until the library is loaded, its settings are placeholders that every role
 * can read.  If the postmaster has preloaded it, there is no such time.
 */
static void
warn_of_placeholders(void)
{
	const char *end;

	if (is_preloaded || IsParallelWorker())
		return;
	if (api_token[0] == '\0' && !sgt_find_proxy_password(proxy, &end))
		return;

	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a secret of \"%s\" was readable by every role until the library was loaded",
					PREFIX),
			 errhint("Add \"%s\" to \"shared_preload_libraries\".", PREFIX)));
}

/*
 * Judgement
 */

/* Judges what can be wrong with the session as a whole. */
static void
judge_session(void)
{
	const char *hint = gettext_noop("Add \"sw_guest_token\" to \"shared_preload_libraries\", and restart the server.");

	/*
	 * ANALYZE evaluates the expressions of indexes, as the table's owner.
	 * Autovacuum does so for everybody, but has nobody's settings: an owner
	 * with a tokens_per_minute would have no limit there.
	 */
	if (AmAutoVacuumWorkerProcess())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("autovacuum cannot request guest tokens"),
				 errhint("Do not request them in an index or in extended statistics.")));
	/* it does not know which of its leader's settings were not accepted */
	if (IsParallelWorker() && !is_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("parallel workers cannot request guest tokens"),
				 errhint("%s", _(hint))));
	/* after a late load, what it has now may not be what it should have */
	if (unaccepted && !(is_preloaded && is_given(unaccepted)))
		refuse_setting(unaccepted + strlen(PREFIX "."),
					   gettext_noop("The value that it had before the library was loaded was not accepted."),
					   is_preloaded ?
					   gettext_noop("Set the parameter in the configuration file.") : hint);
	/* a limit that cannot be enforced must not appear to be */
	if (limits.tokens_per_minute > 0 && !is_preloaded)
		refuse_setting("tokens_per_minute",
					   gettext_noop("The server has not preloaded the library."),
					   hint);
}

/*
 * Judges the settings as they are now, and returns their target.  It lives
 * until the next call of this function, unless it is pinned.  Raises 55000.
 */
Target	   *
sgt_load_target(void)
{
	judge_session();
	check_token_file();
	/* without TLS nobody needs the authorities, and looking takes 1 us */
	if (current == NULL || settings_changed || current->is_https ||
		current->proxy)
		check_trust();
	if (current == NULL || settings_changed)
	{
		sgt_unpin_target(current);
		current = NULL;
		current = make_target(true);
		settings_changed = false;
	}
	return current;
}

/*
 * Judges one part of the settings.  Returns their target, without credentials
 * if only the target was to be judged, or NULL with the error, which is not
 * raised.  It lives until the next call of this function, unless it is pinned.
 *
 * Judging takes no lock and changes nothing but the settings themselves, so
 * that the error can be swallowed without a subtransaction, provided that the
 * caller holds off no interrupts: PostgreSQL forgets that when it raises one.
 */
Target	   *
sgt_check_target(SettingsPart part, CallError *error)
{
	static Target *checked = NULL;
	MemoryContext oldcontext = CurrentMemoryContext;

	sgt_unpin_target(checked);
	checked = NULL;
	Assert(InterruptHoldoffCount == 0);
	PG_TRY();
	{
		judge_session();
		if (part == SETTINGS_CREDENTIALS)
			check_token_file();
		check_trust();
		checked = make_target(part == SETTINGS_CREDENTIALS);
	}
	PG_CATCH();
	{
		ErrorData  *data;

		MemoryContextSwitchTo(oldcontext);
		data = CopyErrorData();
		if (data->sqlerrcode != ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
			PG_RE_THROW();
		FlushErrorState();
		error->sqlstate = data->sqlerrcode;
		error->message = data->message;
		error->detail = data->detail;
		error->hint = data->hint;
	}
	PG_END_TRY();
	return checked;
}

/*
 * Whether queries may read ahead.
 */
bool
sgt_reads_ahead(void)
{
	return read_ahead;
}

/*
 * The limits as they are now.
 */
const Limits *
sgt_get_limits(void)
{
	return &limits;
}

/*
 * Makes a target from the settings, pinned once.  It lives in a context of
 * its own, which is deleted with the caller's if there is an error on the
 * way.
 */
static Target *
make_target(bool with_credentials)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "sw_guest_token target",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Target	   *target = palloc0(sizeof(Target));

	target->context = context;
	target->n_pins = 1;
	target->trust_number = trust.number;
	make_route(target);
	make_key(target);
	if (with_credentials)
		make_credentials(target);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextSetParent(context, TopMemoryContext);
	return target;
}

static void
make_route(Target *target)
{
	ApiUrl		url;
	const char *problem;

	if (base_url[0] != '\0')
	{
		problem = sgt_read_base_url(base_url, &url);
		if (problem)
			refuse_setting("base_url", problem, NULL);
	}
	else
	{
		if (space_name[0] == '\0')
			refuse_setting("space_name", NULL, NULL);
		problem = sgt_read_space_name(space_name, &url);
		if (problem)
			refuse_setting("space_name", problem,
						   gettext_noop("Write \"example\" or \"example.signalwire.com\"; any other host belongs in \"sw_guest_token.base_url\"."));
	}
	target->base_url = url.url;
	target->is_https = url.is_https;

	if (project_id[0] == '\0')
		refuse_setting("project_id", NULL, NULL);
	if (strchr(project_id, ':') || sgt_has_unfit_character(project_id))
		refuse_setting("project_id",
					   "It contains a colon, white space or a control character.", NULL);

	if (ca_file[0] != '\0')
		check_ca_file();
	if (find_ca_file())
		target->ca_file = pstrdup(find_ca_file());
	make_proxy(target);
}

/*
 * To the guard, sessions call the same target if they call the same API in
 * the same way.  The token does not count, so that it can be rotated.
 */
static void
make_key(Target *target)
{
	char	   *str = psprintf("%s\n%s\n%s", target->base_url, project_id,
							   target->proxy ? target->proxy : "");

	for (int i = 0; i < (int) lengthof(target->key); i++)
		target->key[i] = hash_bytes_extended((unsigned char *) str,
											 (int) strlen(str), i);
}

static void
make_credentials(Target *target)
{
	const char *token = api_token_file[0] ? file_token : api_token;

	if (token[0] == '\0')
		refuse_setting("api_token", NULL,
					   gettext_noop("Write the API token into a file that only the server's user can read, and name it in \"sw_guest_token.api_token_file\"."));
	if (sgt_has_unfit_character(token))
		refuse_setting(api_token_file[0] ? "api_token_file" : "api_token",
					   "The token contains white space or a control character.", NULL);
	add_secret(target, pstrdup(token));
	target->authorization =
		psprintf("Basic %s", add_basic_secret(target, project_id, token));
}

/*
 * Reads the token's file if it may have changed.
 */
static void
check_token_file(void)
{
	char		token[MAX_API_TOKEN_LENGTH + 1];
	struct stat st;

	if (api_token_file[0] == '\0' ||
		(token_file_is_known && stat(api_token_file, &st) == 0 &&
		 is_unchanged(&token_file, &st)))
		return;

	token_file_is_known = false;
	read_token_file(token);
	if (strcmp(token, file_token) != 0)
	{
		strlcpy(file_token, token, sizeof(file_token));
		settings_changed = true;
	}
}

/*
 * Whether this is the file that was looked at, unchanged since then: whatever
 * changes contents, owner or permissions also changes its ctime, which nobody
 * can set.
 */
static bool
is_unchanged(const struct stat *known, const struct stat *st)
{
	return st->st_dev == known->st_dev && st->st_ino == known->st_ino &&
		st->st_ctim.tv_sec == known->st_ctim.tv_sec &&
		st->st_ctim.tv_nsec == known->st_ctim.tv_nsec;
}

/*
 * Whether the next change of a file will give it another time: kernels count
 * it in ticks of up to 10 ms, some file systems in steps of up to two seconds.
 */
static bool
is_settled(const struct stat *st)
{
	const int64 step_ms = st->st_ctim.tv_nsec == 0 ? 2000 : 50;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (now.tv_sec - st->st_ctim.tv_sec) * INT64CONST(1000) +
		(now.tv_nsec - st->st_ctim.tv_nsec) / 1000000 > step_ms;
}

/*
 * Reads the API token from its file, by the server's rule for ssl_key_file.
 * The file is checked after it is opened, so that nobody can exchange it in
 * between.
 */
static void
read_token_file(char *token)
{
	int			fd = open_file(PREFIX ".api_token_file", api_token_file);
	struct stat st;
	bool		is_known = false;
	char	   *start = token;
	const char *problem = NULL;
	ssize_t		n = 0;

	if (fstat(fd, &st) != 0)
		problem = gettext_noop("The file could not be examined.");
	else if (!S_ISREG(st.st_mode))
		problem = gettext_noop("It is not a regular file.");
	else if (st.st_uid != geteuid() && st.st_uid != 0)
		problem = gettext_noop("The file must be owned by the database user or root.");
	else if ((st.st_uid == geteuid() && st.st_mode & (S_IRWXG | S_IRWXO)) ||
			 (st.st_uid == 0 && st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)))
		problem = gettext_noop("The file must have permissions u=rw (0600) or less if owned by the database user, or permissions u=rw,g=r (0640) or less if owned by root.");
	else
	{
		/* before it is read, because it may change meanwhile */
		token_file = st;
		is_known = is_settled(&st);
		n = read(fd, token, MAX_API_TOKEN_LENGTH + 1);
		if (n < 0)
			problem = gettext_noop("The file could not be read.");
		else if (n > MAX_API_TOKEN_LENGTH)
			problem = gettext_noop("The file is too long.");
		else if (memchr(token, '\0', n))
			problem = gettext_noop("The token contains white space or a control character.");
	}
	CloseTransientFile(fd);
	if (problem)
		refuse_setting("api_token_file", problem, NULL);

	while (n > 0 && isspace((unsigned char) token[n - 1]))
		n--;
	token[n] = '\0';
	while (isspace((unsigned char) *start))
		start++;
	memmove(token, start, strlen(start) + 1);
	if (token[0] == '\0')
		refuse_setting("api_token_file", "The file is empty.", NULL);
	token_file_is_known = is_known;
}

/*
 * libcurl reads the file at the next TLS handshake; without this check, a
 * plain mistake would show only then.
 */
static void
check_ca_file(void)
{
	int			fd = open_file(PREFIX ".ca_file", ca_file);
	struct stat st;
	bool		is_regular;

	is_regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	CloseTransientFile(fd);
	if (!is_regular)
		refuse_setting("ca_file", "It is not a regular file.", NULL);
}

/*
 * Opens the file that a setting names.
 */
static int
open_file(const char *name, const char *path)
{
	/* neither a terminal nor a FIFO may hold us up */
	int			fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);

	if (fd < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not open the file of parameter \"%s\": %m", name)));
	return fd;
}

/*
 * The file of certificate authorities to trust, the system's if none is set;
 * NULL if libcurl has another way to find those.
 *
 * If the system also has a directory of them, it holds the same ones, and
 * libcurl would not keep what it reads from there.
 */
static const char *
find_ca_file(void)
{
	static const curl_version_info_data *info = NULL;

	if (ca_file[0])
		return ca_file;
	if (info == NULL)			/* libcurl fills it in again each time */
		info = curl_version_info(CURLVERSION_NOW);
	return info->cainfo;
}

/*
 * Gives the trust a new number if the file may hold other authorities than it
 * did when the last call looked.
 */
static void
check_trust(void)
{
	const char *path = find_ca_file();
	struct stat st;

	if (path == NULL)
		return;
	if (stat(path, &st) != 0)
		memset(&st, 0, sizeof(st)); /* that is a change, too */
	if (trust.path && strcmp(path, trust.path) == 0 &&
		is_unchanged(&trust.file, &st))
		return;
	trust.number++;
	free(trust.path);
	trust.path = strdup(path);	/* without memory the next call looks again */
	trust.file = st;
	settings_changed = true;
}

static void
make_proxy(Target *target)
{
	const char *str = proxy;
	const char *problem;
	ProxyUrl	url;

	if (str[0] == '\0' && target->is_https)
	{
		str = sgt_find_environment_proxy();
		target->obeys_no_proxy = true;
	}
	if (str == NULL || str[0] == '\0')
		return;

	problem = sgt_read_proxy(str, target->is_https, &url);
	if (problem)
		refuse_setting("proxy", problem, !target->obeys_no_proxy ? NULL :
					   gettext_noop("The parameter is empty, so the proxy comes from the server's environment (\"https_proxy\" or \"all_proxy\")."));
	target->proxy = url.url;
	if (url.written_password)
		add_secret(target, url.written_password);
	if (url.password)
	{
		add_secret(target, url.password);
		add_basic_secret(target, url.user ? url.user : "", url.password);
	}
}

static void
add_secret(Target *target, const char *str)
{
	Assert(target->secrets.n < SGT_MAX_SECRETS);
	if (str[0] != '\0')
		target->secrets.texts[target->secrets.n++] = str;
}

/*
 * What follows "Basic" in the header.
 */
static const char *
add_basic_secret(Target *target, const char *user, const char *password)
{
	char	   *plain = psprintf("%s:%s", user, password);
	int			size = pg_b64_enc_len(strlen(plain)) + 1;
	char	   *encoded = palloc0(size);

	if (sgt_b64_encode(plain, strlen(plain), encoded, size - 1) < 0)
		elog(ERROR, "could not encode credentials");
	add_secret(target, encoded);
	return encoded;
}

/*
 * Raises 55000 for a setting that is missing (no detail) or not fit for use.
 */
static void
refuse_setting(const char *name, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 detail ?
			 errmsg("parameter \"%s.%s\" cannot be used", PREFIX, name) :
			 errmsg("parameter \"%s.%s\" is not set", PREFIX, name),
			 detail ? errdetail_internal("%s", _(detail)) : 0,
			 hint ? errhint("%s", _(hint)) : 0));
}
