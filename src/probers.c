/*-------------------------------------------------------------------------
 * probers.c
 *		Who may probe next, while requests are suspended.
 *
 * Whoever comes first probes.  But if that were always the one who comes most
 * often, a job that repeats a request which the API cannot process would take
 * every probe, and everybody's requests would stay suspended.  So those who have
 * not probed without success, or not for longer, go first.  Others wait a little
 * longer, but not more than that, because the former may not come.  If they do,
 * they need not wait for the end of such a probe's lease.
 *
 * guard.c holds a spinlock while it calls these functions, so they must not
 * raise or wait.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"

#include "probers.h"

/*
 * How much later somebody probes for each role, and for each session, that goes
 * first.  Roles outweigh sessions, of which two may go first.
 */
#define ROLE_DELAY_US		(500 * 1000)
#define SESSION_DELAY_US	(150 * 1000)

/*
 * For how long a loss counts.  Closing the breaker ends none: the job might
 * open it again before anybody else has had much of the API.
 */
#define LOSS_US				(15 * USECS_PER_SEC)

static int	count_before(const Waiting *waiting, uint32 who, int64 lost_us,
						 int64 now);
static void note_waiting(Waiting *waiting, uint32 who, int64 lost_us,
						 int64 now);
static void note_gone(Waiting *waiting, uint32 who);
static int64 get_loss(const Loser *loser, int64 now);
static int64 forget_old_loss(int64 lost_us, int64 now);
static Loser *find_loser(Probers *probers, Oid role);

/*
 * How much later than others a session may probe.
 *
 * If its last probe had no success, that may be due to what it asks for: so
 * other roles go first, and then the role's other sessions, if any ask.  In
 * an outage, all lose their probes, and take turns.  A session that is alone
 * probes as often as many.
 */
int64
sgt_delay_prober(Probers *probers, int64 own_lost_us, Oid role, int64 now)
{
	const Loser *loser = find_loser(probers, role);
	int64		delay_us = ROLE_DELAY_US *
	count_before(&probers->role, role, get_loss(loser, now), now);

	if (loser)
		delay_us += SESSION_DELAY_US *
			count_before(&loser->session, MyProcPid,
						 forget_old_loss(own_lost_us, now), now);
	return delay_us;
}

/*
 * How many others may come who have no loss, or an older one.
 */
static int
count_before(const Waiting *waiting, uint32 who, int64 lost_us, int64 now)
{
	int			n = 0;

	if (lost_us == 0)
		return 0;
	if (waiting->unbeaten != 0 && waiting->unbeaten != who)
		n++;
	if (waiting->loser != 0 && waiting->loser != who &&
		forget_old_loss(waiting->lost_us, now) != 0 &&
		waiting->lost_us < lost_us)
		n++;
	return n;
}

/* Notes who was refused. */
void
sgt_note_refusal(Probers *probers, int64 own_lost_us, Oid role, int64 now)
{
	Loser	   *loser = find_loser(probers, role);

	note_waiting(&probers->role, role, get_loss(loser, now), now);
	if (loser)
		note_waiting(&loser->session, MyProcPid,
					 forget_old_loss(own_lost_us, now), now);
}

/*
 * Whoever has no loss keeps the place, be it for hours, until it comes or
 * another does: it costs others little.
 */
static void
note_waiting(Waiting *waiting, uint32 who, int64 lost_us, int64 now)
{
	if (lost_us == 0)
	{
		note_gone(waiting, who);
		waiting->unbeaten = who;
	}
	else if (waiting->loser == 0 || lost_us < waiting->lost_us ||
			 forget_old_loss(waiting->lost_us, now) == 0)
	{
		waiting->loser = who;
		waiting->lost_us = lost_us;
	}
}

static void
note_gone(Waiting *waiting, uint32 who)
{
	if (waiting->unbeaten == who)
		waiting->unbeaten = 0;
	if (waiting->loser == who)
		waiting->loser = 0;
}

/*
 * Notes that a session probes, and so waits no longer.  Until it has success,
 * that is a loss.  If there is no place left for it, the oldest is forgotten.
 */
void
sgt_note_probe(Probers *probers, Oid role, int64 now)
{
	Loser	   *loser = find_loser(probers, role);

	note_gone(&probers->role, role);
	if (loser == NULL)
	{
		loser = &probers->losers[0];
		for (int i = 1; i < SGT_N_LOSERS; i++)
		{
			if (probers->losers[i].lost_us < loser->lost_us)
				loser = &probers->losers[i];
		}
		memset(loser, 0, sizeof(Loser));
		loser->role = role;
	}
	note_gone(&loser->session, MyProcPid);
	loser->lost_us = now;
}

/*
 * To be called when a role gets a good answer.  If requests are suspended
 * before it comes again, it goes before those who have a loss.
 */
void
sgt_note_success(Probers *probers, Oid role)
{
	Loser	   *loser = find_loser(probers, role);

	if (loser)
		loser->lost_us = 0;
	note_waiting(&probers->role, role, 0, 0);
}

/* When a role's last probe went that had no success; 0 if it has no loss. */
static int64
get_loss(const Loser *loser, int64 now)
{
	return loser ? forget_old_loss(loser->lost_us, now) : 0;
}

static int64
forget_old_loss(int64 lost_us, int64 now)
{
	return now - lost_us < LOSS_US ? lost_us : 0;
}

static Loser *
find_loser(Probers *probers, Oid role)
{
	for (int i = 0; i < SGT_N_LOSERS; i++)
	{
		if (probers->losers[i].role == role)
			return &probers->losers[i];
	}
	return NULL;
}
