/* Allocation that cannot fail: on exhaustion the process says so on stderr and exits with 71.
 * Recovery from lack of memory is a restart: every program of this project may die at any instant.
 */
#ifndef LIB_MEM_H
#define LIB_MEM_H

#include <stddef.h>

void *mem_alloc(size_t bytes);                          /* zeroed */
void *mem_alloc_array(size_t count, size_t item_bytes); /* zeroed; checks the product */
void *mem_resize(void *old, size_t bytes);
char *mem_strdup(const char *text); /* NULL stays NULL */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Grows *array (item_bytes each) so that it holds at least `count` items; doubles. */
void mem_grow(void **array, size_t *capacity, size_t count, size_t item_bytes);

#endif
