/*-------------------------------------------------------------------------
 * probers.c
 *		Who may probe next, while requests are suspended.
 *
 * Whoever comes first probes.  But if that were always the one who comes most
 * often, a job that repeats a request which the API cannot process would take
 * every probe, and everybody's requests would stay suspended.  So it is the
 * turn of those who have not probed without success, or not for longer.  Others
 * wait a little longer, and probe out of turn then: those whose turn it is may
 * not come.  If they do, they need not wait for the end of such a probe's lease.
 *
 * guard.c holds a spinlock while it calls these functions, so they must not
 * raise or wait.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"

#include "probers.h"

/* How much later than others a role or a session probes. */
#define DELAY_US			(250 * 1000)

/*
 * For how long a loss counts.  Closing the breaker ends none: the job might
 * open it again before anybody else has had much of the API.
 */
#define LOSS_US				(15 * USECS_PER_SEC)

static bool other_goes_first(const Waiting *waiting, uint32 who, int64 lost_us);
static int64 get_loss(const Loser *loser, int64 now);
static int64 forget_old_loss(int64 lost_us, int64 now);
static Loser *find_loser(Probers *probers, Oid role);
static void note_waiting(Waiting *waiting, uint32 who, int64 lost_us);

/*
 * How much later than others a session may probe; 0 if it is its turn.
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
	int64		delay_us = 0;

	if (other_goes_first(&probers->role, role, get_loss(loser, now)))
		delay_us += DELAY_US;
	if (loser && other_goes_first(&loser->session, MyProcPid,
								  forget_old_loss(own_lost_us, now)))
		delay_us += DELAY_US;
	return delay_us;
}

/*
 * Whether somebody else may come who has no loss, or an older one.
 */
static bool
other_goes_first(const Waiting *waiting, uint32 who, int64 lost_us)
{
	return waiting->who != 0 && waiting->who != who &&
		waiting->lost_us < lost_us;
}

/* Notes who was refused. */
void
sgt_note_refusal(Probers *probers, int64 own_lost_us, Oid role, int64 now)
{
	Loser	   *loser = find_loser(probers, role);

	note_waiting(&probers->role, role, get_loss(loser, now));
	if (loser)
		note_waiting(&loser->session, MyProcPid,
					 forget_old_loss(own_lost_us, now));
}

/*
 * There is one place, for whoever came last of those without a loss, or else
 * for who has the oldest one.  They keep it until they come, be it hours: it
 * costs others little.
 */
static void
note_waiting(Waiting *waiting, uint32 who, int64 lost_us)
{
	if (other_goes_first(waiting, who, lost_us))
		return;
	waiting->who = who;
	waiting->lost_us = lost_us;
}

/*
 * Notes that a session probes, and so waits no longer.  Until it has success,
 * that is a loss.  If there is no place left for it, the oldest is forgotten.
 */
void
sgt_note_probe(Probers *probers, Oid role, int64 now)
{
	Loser	   *loser = find_loser(probers, role);

	if (probers->role.who == role)
		probers->role.who = 0;
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
	if (loser->session.who == (uint32) MyProcPid)
		loser->session.who = 0;
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
	note_waiting(&probers->role, role, 0);
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
