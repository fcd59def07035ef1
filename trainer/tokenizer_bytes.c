#include "trainer/tokenizer_bytes.h"

void tokenizer_bytes_encode(const uint8_t *text, size_t bytes, uint16_t *out)
{
    for (size_t i = 0; i < bytes; i++) {
        out[i] = text[i];
    }
}
