/* ByteLevel's alphabet: 256 printable characters, one for each byte. The printable characters of
 * Latin-1 stand for their own byte; the others, in order, are U+0100 and on. */
#ifndef TRAINER_TOKENIZER_ALPHABET_H
#define TRAINER_TOKENIZER_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

uint32_t alphabet_char(uint8_t byte);
/* False when the character is none of the alphabet. */
bool alphabet_byte(uint32_t c, uint8_t *byte);
/* Appends the bytes that a text of the alphabet (valid UTF-8) stands for; false, and nothing is
 * appended, when another character is in it. */
bool alphabet_append_bytes(const uint8_t *text, size_t bytes, struct buf *out);

#endif
