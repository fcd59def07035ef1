/* What is wrong with a JSON text. */
#ifndef TRAINER_JSON_ERROR_H
#define TRAINER_JSON_ERROR_H

#include <jansson.h>
#include <stddef.h>

/* jansson's words, and of a key that is there twice its name, which jansson leaves out when it is
 * long. json: the text that *where is about. out is cut to bytes. */
void json_error_text(char *out, size_t bytes, const json_error_t *where, const char *json);

#endif
