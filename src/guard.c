/*-------------------------------------------------------------------------
 * guard.c
 *		What all sessions share about the API, so that its outage does not
 *		become an outage of the database.
 *
 * A call holds a session, a transaction and its locks while it waits.  When
 * the API stops answering, and each session finds that out by its own timeout,
 * soon no session is left for other work.  So the sessions share what they
 * learn, and fail at once where waiting would be of no use.  Nobody queues here.
 *
 * All of it is in one small area of shared memory: an entry for each target
 * that the server's sessions call, and what each role with a budget has used
 * of it.  breaker.c judges whether a target works.  This file tells it how
 * attempts have ended, counts sessions and calls, and writes the log.  It
 * knows nothing of batches.
 *
 * 1. One spinlock protects the area.  It is held for a few lines that cannot
 *    raise, take no other lock, and loop over nothing but the entries, the
 *    budgets, an entry's losers, and the characters of a new target's URL.
 * 2. A target keeps its entry until the server stops, so that a pointer to it
 *    stays valid.  A target that finds no entry is not guarded.
 * 3. A session keeps account of what it has added to "sessions" and "n_late",
 *    and takes it back when it exits, however it exits.  If it cannot
 *    (SIGKILL), PostgreSQL re-creates all shared memory.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "budget.h"
#include "clock.h"
#include "guard.h"
#include "messages.h"
#include "probers.h"

/* How often a waiting request looks at what other sessions know. */
#define LOOK_US				(250 * 1000)

/*
 * Without a connection, shorter times do not count as silence: TCP takes a
 * second to repeat a packet that was lost, and libcurl half of connect_timeout
 * to go on to another address.  If the first name server is down, the system
 * asks the second after five seconds; a request that waits so long for a name
 * is late all the same, and counts for max_sessions.
 */
#define MIN_UNCONNECTED_US	(3 * USECS_PER_SEC)
#define MIN_LOOK_UP_US		(6 * USECS_PER_SEC)

/* A target, as the sessions share it. */
struct Guarded
{
	uint64		key[2];
	char		url[SGT_GUARDED_URL_SIZE];

	int			sessions;		/* inside a call */
	int			n_late;			/* their requests that have waited for
								 * sgt_silence_us() */

	Breaker		breaker;
	Probers		probers;
	GuardCounters counters;
};

typedef struct GuardArea
{
	slock_t		mutex;
	int			n_guarded;
	Guarded		guarded[SGT_MAX_GUARDED];
	Budget		budgets[SGT_N_BUDGETS];
} GuardArea;

/* What this session has added to the shared counts. */
typedef struct OwnShare
{
	int			n_batches;		/* they count as one session */
	int			n_late;
	int64		measured_us;	/* when an answer's time last went into srtt */
	int64		lost_us;		/* when its last probe went, if that had no
								 * success; otherwise 0 */
	bool		had_long_probe; /* and lets others have the next */
	int64		broken_us;		/* when a connection last broke, ... */
	int			broken_port;	/* and its local port */
} OwnShare;

static GuardArea *area = NULL;
static OwnShare own_shares[SGT_MAX_GUARDED];

/* What has not been logged yet. */
static struct
{
	bool		is_any;
	BreakerState state;
	int64		open_us;		/* how long it was open */
	char		url[SGT_GUARDED_URL_SIZE];
}			change;

static shmem_request_hook_type next_shmem_request_hook = NULL;
static shmem_startup_hook_type next_shmem_startup_hook = NULL;

static void request_area(void);
static void start_area(void);
static void take_back_shares(int code, Datum arg);
static OwnShare *find_own_share(const Guarded *g);
static bool is_crowded(const Guarded *g, const Limits *limits);
static int64 get_limit_us(const Limits *limits);
static void lease_probe(Guarded *g, const Limits *limits, int64 delay_us,
						bool has_written, int64 now, GuardWatch *watch);
static void take_answer(Guarded *g, const Attempt *a);
static void take_other_end(Guarded *g, const Limits *limits, const Attempt *a,
						   AttemptEnd result);
static bool is_own_affair(const Guarded *g, const Limits *limits,
						  const Attempt *a);
static void take_failure(Guarded *g, BreakerCause cause, int status, int n,
						 int64 now);
static void note_change(const Guarded *g, int64 now);
static CallEnd classify_call(AttemptEnd result, int status);

/*
 * The area
 */

/* To be called from _PG_init() if the postmaster is loading the library. */
void
sgt_install_guard(void)
{
	next_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_area;
	next_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_area;
}

static void
request_area(void)
{
	if (next_shmem_request_hook)
		next_shmem_request_hook();
	RequestAddinShmemSpace(sizeof(GuardArea));
}

static void
start_area(void)
{
	bool		found;

	if (next_shmem_startup_hook)
		next_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	area = ShmemInitStruct("sw_guest_token", sizeof(GuardArea), &found);
	if (!found)
	{
		memset(area, 0, sizeof(GuardArea));
		SpinLockInit(&area->mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* The entry of a target; NULL if there is none. */
Guarded    *
sgt_find_guarded(const Target *target)
{
	static bool is_registered = false;
	Guarded    *g = NULL;

	if (area == NULL)
		return NULL;
	if (!is_registered)
	{
		on_shmem_exit(take_back_shares, (Datum) 0);
		is_registered = true;
	}

	SpinLockAcquire(&area->mutex);
	for (int i = 0; i < area->n_guarded && g == NULL; i++)
	{
		if (memcmp(area->guarded[i].key, target->key, sizeof(target->key)) == 0)
			g = &area->guarded[i];
	}
	if (g == NULL && area->n_guarded < SGT_MAX_GUARDED)
	{
		g = &area->guarded[area->n_guarded++];
		memcpy(g->key, target->key, sizeof(g->key));
		strlcpy(g->url, target->base_url, sizeof(g->url));
		/* databases of any encoding may show it */
		for (char *c = g->url; *c != '\0'; c++)
		{
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
		}
		g->counters.reset = GetCurrentTimestamp();
	}
	SpinLockRelease(&area->mutex);
	return g;
}

/*
 * Sessions
 */

/*
 * Enters a call; false if this session is one too many.  There is no limit as
 * long as the API answers in time: a burst does no harm then.  Nor is there
 * one for a session that only comes back.
 */
bool
sgt_enter_guard(Guarded *g, const Limits *limits, bool comes_back)
{
	bool		may_enter;

	if (g == NULL || find_own_share(g)->n_batches++ > 0)
		return true;
	SpinLockAcquire(&area->mutex);
	may_enter = comes_back || !is_crowded(g, limits);
	g->sessions += may_enter;
	g->n_late += may_enter ? find_own_share(g)->n_late : 0;
	SpinLockRelease(&area->mutex);
	if (!may_enter)
		find_own_share(g)->n_batches = 0;
	return may_enter;
}

static bool
is_crowded(const Guarded *g, const Limits *limits)
{
	return limits->max_sessions > 0 && g->sessions >= limits->max_sessions &&
		(g->n_late > 0 || sgt_is_slow(&g->breaker));
}

/*
 * Leaves a call.  A query that reads ahead may still have requests in flight.
 * They do not count as late until the session enters again, because nobody
 * waits for them.
 */
void
sgt_leave_guard(Guarded *g)
{
	/* the session's exit may have taken its share back before */
	if (area == NULL || g == NULL || --find_own_share(g)->n_batches > 0)
		return;
	SpinLockAcquire(&area->mutex);
	g->sessions--;
	g->n_late -= find_own_share(g)->n_late;
	SpinLockRelease(&area->mutex);
}

static OwnShare *
find_own_share(const Guarded *g)
{
	return &own_shares[g - area->guarded];
}

/*
 * Takes back what is left when the session exits and its transaction has been
 * aborted.  From then on the session is not guarded.
 */
static void
take_back_shares(int code, Datum arg)
{
	(void) code;
	(void) arg;
	SpinLockAcquire(&area->mutex);
	for (int i = 0; i < SGT_MAX_GUARDED; i++)
	{
		if (own_shares[i].n_batches == 0)
			continue;
		area->guarded[i].sessions--;
		area->guarded[i].n_late -= own_shares[i].n_late;
	}
	SpinLockRelease(&area->mutex);
	area = NULL;
}

/*
 * Requests
 */

/*
 * Whether a request may go; otherwise "refusal" tells why, and "state" more
 * about a suspension.
 */
bool
sgt_ask_guard(Guarded *g, const Limits *limits, bool is_turned_away, int64 now,
			  GuardWatch *watch, AttemptEnd *refusal, BreakerState *state)
{
	bool		has_written = TransactionIdIsValid(GetTopTransactionIdIfAny());
	Oid			role = GetAuthenticatedUserId();
	bool		may_go = false;
	int64		later_us = 0;
	bool		is_open;

	if (area == NULL)
		return true;
	SpinLockAcquire(&area->mutex);
	is_open = g && g->breaker.is_open && limits->breaker;

	if (is_open)
	{
		sgt_note_limit(&g->breaker, get_limit_us(limits));
		later_us = sgt_delay_prober(&g->probers, find_own_share(g)->lost_us,
									role, now);
	}
	if (is_open && !sgt_may_probe(&g->breaker, later_us, now))
	{
		*refusal = ATTEMPT_SUSPENDED;
		/* "probe_in_us" tells when this session may probe */
		sgt_get_breaker_state(&g->breaker, now - later_us, state);
		sgt_note_refusal(&g->probers, find_own_share(g)->lost_us, role, now);
	}
	else if (is_turned_away && !is_open)	/* nobody keeps a probe from going */
		*refusal = ATTEMPT_CROWDED;
	else if (!sgt_spend(area->budgets, role, limits->tokens_per_minute, now))
		*refusal = ATTEMPT_OVER_BUDGET;
	else
		may_go = true;
	if (may_go && g)
		watch->suspect_us = is_open ? now : g->breaker.suspect_us;
	if (may_go && is_open)
		lease_probe(g, limits, later_us, has_written, now, watch);
	SpinLockRelease(&area->mutex);
	return may_go;
}

/* How long a request may take. */
static int64
get_limit_us(const Limits *limits)
{
	int			limit_ms = limits->timeout_ms;

	if (StatementTimeout > 0)
		limit_ms = Min(limit_ms, StatementTimeout);
	return limit_ms * INT64CONST(1000);
}

static void
lease_probe(Guarded *g, const Limits *limits, int64 delay_us,
			bool has_written, int64 now, GuardWatch *watch)
{
	OwnShare   *own = find_own_share(g);
	bool		others_probe = own->lost_us != g->breaker.leased_us;

	/* until it has success */
	sgt_note_probe(&g->probers, GetAuthenticatedUserId(), now);
	own->lost_us = now;

	watch->is_probe = true;
	watch->locked_since_us = has_written ? now : 0;
	if (!sgt_lease_probe(&g->breaker, delay_us, has_written,
						 get_limit_us(limits), now))
		return;

	/*
	 * If sessions take turns, each eighth turn may always be the same one's,
	 * whose time limit may be too short for the API.
	 */
	if (own->had_long_probe && others_probe)
	{
		own->had_long_probe = false;
		return;
	}
	own->had_long_probe = true;
	sgt_prolong_probe(&g->breaker, limits->timeout_ms * INT64CONST(1000), now);
	watch->long_until_us = g->breaker.long_until_us;
}

/*
 * Whether a request that was let through before may be sent again; otherwise
 * "state" tells why.
 */
bool
sgt_may_go_on(Guarded *g, const Limits *limits, const GuardWatch *watch,
			  bool is_retry, int64 now, BreakerState *state)
{
	bool		may_go = true;

	if (g == NULL)
		return true;
	SpinLockAcquire(&area->mutex);
	if (limits->breaker && !watch->is_probe)
	{
		sgt_get_breaker_state(&g->breaker, now, state);
		may_go = !state->is_open;
	}
	if (is_retry && !may_go)
		g->counters.retries_denied++;
	SpinLockRelease(&area->mutex);
	return may_go;
}

/*
 * Whether the sessions' shared budget allows another attempt for a failed
 * request; if so, this spends it.
 */
bool
sgt_may_retry(Guarded *g, const Limits *limits, const Attempt *a)
{
	bool		may_retry;

	if (g == NULL)
		return true;
	SpinLockAcquire(&area->mutex);
	if (!limits->breaker)
		may_retry = true;
	else if (is_own_affair(g, limits, a))
		may_retry = !g->breaker.is_open;
	else
		may_retry = sgt_spend_retry(&g->breaker);
	if (!may_retry)
		g->counters.retries_denied++;
	SpinLockRelease(&area->mutex);
	return may_retry;
}

/*
 * Takes note of how an attempt has ended, and of its request's result so far.
 *
 * Some ends say nothing about the API: a cancel, a fault on this side, a time
 * limit that is shorter than an answer usually takes, and whatever happened
 * while nobody drove.  A 500 says nothing either: it may be about the one
 * request.
 */
void
sgt_tell_guard(Guarded *g, const Limits *limits, const Attempt *a,
			   AttemptEnd result, bool is_retry)
{
	if (area == NULL || g == NULL)
		return;
	SpinLockAcquire(&area->mutex);
	g->counters.requests += a->n_sent;
	g->counters.retries += is_retry;
	if (a->end == ATTEMPT_ANSWERED)
		g->breaker.last_answer_us = Max(g->breaker.last_answer_us, a->ended_us);
	if (result == ATTEMPT_ANSWERED && a->status != 429 && a->status / 100 != 5)
		take_answer(g, a);
	else if (limits->breaker)
		take_other_end(g, limits, a, result);
	SpinLockRelease(&area->mutex);
}

/*
 * If nobody drove for a while, it is not known how long the answer took.  A
 * session measures once a round trip, as TCP does: a batch of slow requests is
 * one caller among many.
 */
static void
take_answer(Guarded *g, const Attempt *a)
{
	OwnShare   *own = find_own_share(g);
	int64		took_us = 0;

	if (a->gap_us == 0 && a->sent_us >= own->measured_us)
	{
		took_us = a->ended_us - a->sent_us;
		own->measured_us = a->ended_us;
	}
	sgt_note_success(&g->probers, GetAuthenticatedUserId());
	own->lost_us = 0;
	own->had_long_probe = false;
	if (sgt_note_good_answer(&g->breaker, a->status == 201, a->started_us,
							 took_us, a->ended_us))
		note_change(g, a->ended_us);
}

static void
take_other_end(Guarded *g, const Limits *limits, const Attempt *a,
			   AttemptEnd result)
{
	BreakerCause cause = CAUSE_STATUS;
	bool		says_nothing = false;
	int64		silence_us;

	switch (result)
	{
		case ATTEMPT_ANSWERED:
			says_nothing = a->status == 500;
			break;
		case ATTEMPT_NOT_CONNECTED:
			cause = CAUSE_NO_CONNECTION;
			break;
		case ATTEMPT_BROKEN:
			cause = CAUSE_BROKEN;
			break;
		case ATTEMPT_TIMED_OUT:
		case ATTEMPT_CONNECT_TIMED_OUT:
			cause = CAUSE_TIMED_OUT;
			break;
		case ATTEMPT_SILENT:	/* it counted while it lasted */
		case ATTEMPT_ABANDONED: /* it is repeated, or nobody waits for it */
			return;
		default:
			says_nothing = true;
			break;
	}

	/*
	 * while others are answered, timeouts may be due to one role's requests,
	 * and refusals to how few the server takes at a time; a time limit need
	 * not be as long as an answer may take
	 */
	silence_us = sgt_silence_us(&g->breaker);
	if (cause == CAUSE_TIMED_OUT)
		silence_us = Min(silence_us, a->ended_us - sgt_waiting_since_us(a));
	says_nothing |= is_own_affair(g, limits, a) ||
		((cause == CAUSE_TIMED_OUT || a->ends_refused) &&
		 a->ended_us - g->breaker.last_answer_us < silence_us);
	if (says_nothing)
		return;

	if (cause == CAUSE_BROKEN)
	{
		find_own_share(g)->broken_us = a->ended_us;
		find_own_share(g)->broken_port = a->local_port;
	}
	take_failure(g, cause, a->status, 1, a->ended_us);
	if (g->breaker.is_open && cause == CAUSE_STATUS && a->status == 429 &&
		a->retry_after_s > 0)
		sgt_delay_probe(&g->breaker, a->retry_after_s, a->ended_us);
}

/*
 * Whether an attempt has failed because of this session alone: it has not even
 * sent a long request, its time limit was short or went by while it did not
 * wait for the other side, or nobody drove for so long that the server may have
 * given up, or that a good answer may have come after this one.  Or another one
 * has told about the same host or connection, or makes the connection for which
 * it has waited, and will tell how that ends.
 */
static bool
is_own_affair(const Guarded *g, const Limits *limits, const Attempt *a)
{
	int64		limit_us = INT64CONST(1000) *
	(a->end == ATTEMPT_CONNECT_TIMED_OUT ?
	 limits->connect_timeout_ms : limits->timeout_ms);
	int64		waited_us = a->ended_us - sgt_waiting_since_us(a);
	int64		patience_us = sgt_patience_us(&g->breaker);
	const OwnShare *own = find_own_share(g);

	if (a->is_cut_short || a->is_condemned)
		return true;
	if (a->end == ATTEMPT_BROKEN && a->local_port == own->broken_port &&
		a->sent_us < own->broken_us && own->broken_us < a->ended_us)
		return true;
	if (a->end != ATTEMPT_TIMED_OUT && a->end != ATTEMPT_CONNECT_TIMED_OUT)
		return a->gap_us != 0 &&
			(a->status == 0 || g->breaker.last_good_us > a->before_gap_us);
	return sgt_waits_for_another(a) || limit_us < patience_us ||
		waited_us < Min(patience_us, limit_us / 2);
}

static void
take_failure(Guarded *g, BreakerCause cause, int status, int n, int64 now)
{
	if (!sgt_note_failure(&g->breaker, cause, status, n, now))
		return;
	g->counters.opened++;
	g->counters.last_opened = GetCurrentTimestamp();
	note_change(g, now);
}

static void
note_change(const Guarded *g, int64 now)
{
	change.is_any = true;
	change.open_us = now - g->breaker.opened_us;
	sgt_get_breaker_state(&g->breaker, now, &change.state);
	memcpy(change.url, g->url, sizeof(change.url));
}

/*
 * Tells the server's log what has changed, without the statement, which may
 * contain a refresh token.  A client is not told, because one that does not
 * read for a long time would keep the session inside the guard.
 */
void
sgt_report_guard(void)
{
	if (!change.is_any)
		return;
	change.is_any = false;
	if (change.state.is_open)
		ereport(LOG_SERVER_ONLY,
				(errmsg("requests to SignalWire are suspended"),
				 errdetail("The target is %s.  %s", change.url,
						   sgt_describe_cause(&change.state)),
				 errhidestmt(true), errhidecontext(true)));
	else
		ereport(LOG_SERVER_ONLY,
				(errmsg("requests to SignalWire are resumed"),
				 errdetail("The target is %s.  They were suspended for %.1f s.",
						   change.url, (double) change.open_us / USECS_PER_SEC),
				 errhidestmt(true), errhidecontext(true)));
}

/*
 * When a request that is sent now should look at what other sessions know.
 */
int64
sgt_add_silence(Guarded *g, int64 now)
{
	int64		silence_us;

	if (g == NULL)
		return NEVER;
	SpinLockAcquire(&area->mutex);
	silence_us = sgt_silence_us(&g->breaker);
	SpinLockRelease(&area->mutex);
	return now + silence_us;
}

/*
 * Whether a request that has waited for a while gives up.  If not, it should
 * look again at *look_us.
 *
 * The first timeouts come late; silence is noticed sooner.  It counts only if
 * no session has had an answer, and once for every sgt_silence_us() that it
 * lasts: if calls queue for a lock, only one at a time waits for the API.  Of
 * requests that wait for one connection to be made, one counts.
 */
bool
sgt_look_at_guard(Guarded *g, const Limits *limits, const Attempt *a,
				  GuardWatch *watch, int64 now, int64 *look_us)
{
	bool		gives_up = false;
	int64		silence_us;
	int64		since_us = sgt_is_sending(a) ? now : sgt_waiting_since_us(a);
	int			n;

	*look_us = NEVER;
	if (area == NULL || g == NULL)
		return false;
	SpinLockAcquire(&area->mutex);
	silence_us = sgt_silence_us(&g->breaker);
	if (!a->is_sent)
		silence_us = Max(silence_us, MIN_UNCONNECTED_US);
	*look_us = since_us + silence_us;
	if (now >= *look_us)
	{
		*look_us = now + LOOK_US;
		if (!watch->is_late)
		{
			/* other sessions count it only while this one is inside a call */
			watch->is_late = true;
			find_own_share(g)->n_late++;
			g->n_late += find_own_share(g)->n_batches > 0;
		}
		since_us = Max(since_us, g->breaker.last_answer_us);
		if (watch->silent_since_us != since_us)
			watch->n_silences = 0;
		watch->silent_since_us = since_us;
		if (sgt_is_looking_up(a))
			silence_us = Max(silence_us, MIN_LOOK_UP_US);
		n = (int) ((now - since_us) / silence_us);
		if (n > watch->n_silences && limits->breaker && !sgt_waits_for_another(a))
			take_failure(g, CAUSE_SILENCE, 0, n - watch->n_silences, now);
		watch->n_silences = Max(n, watch->n_silences);
		gives_up = n > 0 && limits->breaker && g->breaker.is_open &&
			(watch->long_until_us == 0 ||
			 watch->long_until_us != g->breaker.long_until_us);
	}
	SpinLockRelease(&area->mutex);
	return gives_up;
}

/* To be called when the attempt is no longer running. */
void
sgt_end_watch(Guarded *g, GuardWatch *watch)
{
	if (area && g &&
		(watch->is_late || watch->locked_since_us != 0 || watch->long_until_us != 0))
	{
		int64		now = sgt_now_us();

		SpinLockAcquire(&area->mutex);
		if (find_own_share(g)->n_batches > 0)
			g->n_late -= watch->is_late;
		sgt_end_probe(&g->breaker, watch->locked_since_us, watch->long_until_us,
					  now);
		SpinLockRelease(&area->mutex);
		find_own_share(g)->n_late -= watch->is_late;
	}
	watch->is_late = false;
	watch->locked_since_us = 0;
	watch->long_until_us = 0;
	watch->silent_since_us = 0;
	watch->n_silences = 0;
}

/*
 * What is shown
 */

/*
 * Counts a call for a token by its result, the status and the SQLSTATE, which
 * is 0 if it got one.
 */
void
sgt_count_call(Guarded *g, AttemptEnd result, int status, int sqlstate,
			   int64 time_us)
{
	CallEnd		end = sqlstate == 0 ? CALL_ISSUED :
	classify_call(result, status);
	int			i = 0;

	if (area == NULL || g == NULL)
		return;
	while (i < SGT_N_LATENCIES - 1 && time_us > (INT64CONST(1000) << i))
		i++;
	SpinLockAcquire(&area->mutex);
	g->counters.ends[end]++;
	/* a cancelled call, or one not let through, says nothing about the API */
	if (end < CALL_CANCELLED)
	{
		g->counters.latencies[i]++;
		g->counters.total_us += time_us;
		if (sqlstate != 0)
			g->counters.last_error = sqlstate;
	}
	SpinLockRelease(&area->mutex);
}

static CallEnd
classify_call(AttemptEnd result, int status)
{
	switch (result)
	{
		case ATTEMPT_ANSWERED:
			return status == 429 ? CALL_LIMITED :
				status / 100 == 4 ? CALL_REJECTED : CALL_FAILED;
		case ATTEMPT_TIMED_OUT:
		case ATTEMPT_CONNECT_TIMED_OUT:
		case ATTEMPT_SILENT:
			return CALL_TIMED_OUT;
		case ATTEMPT_ABANDONED:
			return CALL_CANCELLED;
		case ATTEMPT_SUSPENDED:
			return CALL_SUSPENDED;
		case ATTEMPT_CROWDED:
			return CALL_CROWDED;
		case ATTEMPT_OVER_BUDGET:
			return CALL_OVER_BUDGET;
		default:
			return CALL_FAILED;
	}
}

/* The n-th target, counted from 0; NULL if there are fewer. */
Guarded    *
sgt_get_guarded(int n)
{
	int			n_guarded;

	SpinLockAcquire(&area->mutex);
	n_guarded = area->n_guarded;
	SpinLockRelease(&area->mutex);
	return n < n_guarded ? &area->guarded[n] : NULL;
}

void
sgt_take_snapshot(const Guarded *g, const Limits *limits,
				  GuardSnapshot *snapshot)
{
	int64		now = sgt_now_us();

	memcpy(snapshot->url, g->url, sizeof(snapshot->url));
	SpinLockAcquire(&area->mutex);
	sgt_get_breaker_state(&g->breaker, now, &snapshot->state);
	snapshot->state.is_open &= limits->breaker;
	snapshot->sessions = g->sessions;
	snapshot->is_crowded = is_crowded(g, limits);
	snapshot->counters = g->counters;
	SpinLockRelease(&area->mutex);
}

void
sgt_reset_counters(void)
{
	SpinLockAcquire(&area->mutex);
	for (int i = 0; i < area->n_guarded; i++)
		area->guarded[i].counters = (GuardCounters)
	{
		.reset = GetCurrentTimestamp()
	};
	SpinLockRelease(&area->mutex);
}
