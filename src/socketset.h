/*-------------------------------------------------------------------------
 * socketset.h
 *		One descriptor that tells which of many sockets are ready.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_SOCKETSET_H
#define SGT_SOCKETSET_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#define SOCKET_READ		(1 << 0)
#define SOCKET_WRITE	(1 << 1)
#define SOCKET_ERROR	(1 << 2)	/* reported, never asked for */

/* How many ready sockets are reported at once. */
#define MAX_READY_SOCKETS	16

typedef struct SocketEvent
{
	int			socket;
	int			events;
	bool		is_hung_up;		/* as far as it was watched for reading */
} SocketEvent;

/* What is known of a socket that has been added; else it is all zero. */
typedef struct WatchedSocket
{
	bool		is_added;
	ino_t		inode;			/* tells it from a later one with its number */
	unsigned char wanted;		/* the events that are waited for */
	unsigned char registered;	/* those that the kernel reports */
	int			idle_port;		/* local, if nothing may arrive before it is
								 * used again; else 0 */
} WatchedSocket;

typedef struct SocketSet
{
	int			fd;				/* -1: not open */
	WatchedSocket *sockets;		/* by their number */
	int			table_size;
	volatile	sig_atomic_t is_changing;	/* the table is being enlarged */
} SocketSet;

extern bool sgt_open_sockets(SocketSet *set);
extern void sgt_close_sockets(SocketSet *set);
extern bool sgt_has_spare_descriptor(const SocketSet *set);
extern int	sgt_open_socket(const SocketSet *set, int family, int type,
							int protocol);
extern bool sgt_add_socket(SocketSet *set, int socket);
extern bool sgt_remove_socket(SocketSet *set, int socket);
extern void sgt_cut_sockets(const SocketSet *set);
extern int	sgt_local_port(int socket);
extern bool sgt_has_unsent(int socket);
extern void sgt_note_idle(SocketSet *set, int socket, int local_port);
extern bool sgt_has_stray_input(const SocketSet *set, int local_port);
extern bool sgt_is_socket_lost(const SocketSet *set, int socket);
extern bool sgt_watch_socket(SocketSet *set, int socket, int old_events,
							 int new_events);
extern int	sgt_ready_sockets(SocketSet *set, SocketEvent *events);

#endif							/* SGT_SOCKETSET_H */
