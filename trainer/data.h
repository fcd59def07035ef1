/* A tokenised corpus on disk in Megatron-LM's indexed format, PREFIX.bin and PREFIX.idx, read as
 * one stream of tokens.
 *
 * PREFIX.bin  the tokens of all sequences, one after the other, in the type that the index names
 * PREFIX.idx  little-endian: "MMIDIDX\0\0", u64 version 1, u8 type code, u64 sequences, u64
 * documents + 1, i32 length[sequences] in tokens, i64 pointer[sequences] in bytes into .bin, i64
 * document[documents + 1]: index of each document's first sequence, at last the number of sequences
 *             (Megatron-LM, megatron/core/datasets/indexed_dataset.py, _IndexWriter.write)
 *
 * Megatron-LM's multimodal corpora, whose index goes on with a mode for each sequence, are refused.
 *
 * Everything in the two files is checked before use; a token outside the vocabulary is found when
 * it is read. */
#ifndef TRAINER_DATA_H
#define TRAINER_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define DATA_MAGIC       "MMIDIDX\0" /* nine bytes with the literal's own NUL */
#define DATA_MAGIC_BYTES 9

enum data_type {
    DATA_UINT8 = 1,
    DATA_INT8 = 2,
    DATA_INT16 = 3,
    DATA_INT32 = 4,
    DATA_INT64 = 5,
    DATA_UINT16 = 8,
};

struct dataset {
    char *bin_path; /* owned */
    int bin_fd;
    enum data_type type;
    uint32_t token_bytes;
    uint64_t tokens;
    uint64_t sequences, documents;
    const uint8_t *index; /* owned; the mapped .idx */
    size_t index_bytes;
};

/* Opens and checks PREFIX.idx against PREFIX.bin. ERR_NOT_FOUND, ERR_DATA with the place and the
 * values. */
int dataset_open(struct dataset *d, const char *prefix, struct err *err);
void dataset_close(struct dataset *d); /* a zeroed one is fine */

/* Checks an index held in memory (name is for messages) against a .bin of bin_bytes; fills all of d
 * but the file. */
int dataset_check_index(struct dataset *d, const uint8_t *index, size_t bytes, uint64_t bin_bytes,
                        const char *name, struct err *err);

/* Tokens of a document; *first is the place of its first in the stream. */
uint64_t dataset_document(const struct dataset *d, uint64_t document, uint64_t *first);

/* count tokens of the stream from `first` on into out. ERR_DATA when a token is not below vocab or
 * the file got shorter. */
int dataset_read(const struct dataset *d, uint64_t first, size_t count, uint32_t vocab,
                 int32_t *out, struct err *err);

#endif
