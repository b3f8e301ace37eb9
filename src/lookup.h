/*-------------------------------------------------------------------------
 * lookup.h
 *		Limits how many abandoned name look-ups keep running.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_LOOKUP_H
#define SGT_LOOKUP_H

/* These raise nothing. */
extern bool sgt_may_look_up(void);
extern void sgt_note_left_look_up(void);

#endif							/* SGT_LOOKUP_H */
