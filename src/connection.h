/*-------------------------------------------------------------------------
 * connection.h
 *		Which connection an attempt goes over, and what becomes of it.
 *
 * "running" is the list of all attempts that libcurl has.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_CONNECTION_H
#define SGT_CONNECTION_H

#include "postgres.h"

#include "attempt.h"
#include "socketset.h"

/* These raise nothing. */
extern void sgt_distrust_connections(int64 suspect_us);
extern bool sgt_avoid_old_connections(const Attempt *a, dlist_head *running,
									  CURLM *multi);
extern bool sgt_avoid_old_addresses(const Attempt *a);
extern void sgt_note_unanswered(const Attempt *a);
extern bool sgt_may_send(Attempt *a, dlist_head *running,
						 const SocketSet *sockets, const char *remote_ip,
						 int local_port);
extern void sgt_note_end(const Attempt *a, dlist_head *running,
						 SocketSet *sockets, CURLM *multi);
extern bool sgt_may_be_mixed_up(const Attempt *a, CURLcode code,
								dlist_head *running);
extern Attempt *sgt_find_mixed_up(dlist_head *running);
extern void sgt_note_hang_up(dlist_head *running, int local_port);
extern bool sgt_restart_waiting(dlist_head *running, const Target *target,
								CURLM *multi);

#endif							/* SGT_CONNECTION_H */
