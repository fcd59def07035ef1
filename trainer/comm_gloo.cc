/* Gloo behind comm.h: the one C++ file. Rendezvous, connections, time-outs and errors are gloo's;
 * the collectives are built here on its point-to-point buffers, for two reasons.
 *
 *   Order. Sums are made in the order of the ranks, 0 + 1 + 2 ..., for every element: the result
 * depends on nothing but the values and the group's size, and all ranks have the same bits. (Gloo's
 * ring starts at another rank in each part of the buffer.) Latency. Gloo's own collectives hand
 * every message to its device thread and announce it first. Here a connection is in synchronous
 * mode: the calling thread writes and reads the socket itself, one write and two reads a message.
 * With more ranks than cores that is ten times faster for the small messages of expert parallelism.
 *
 * Deadlock. Everything is made of rounds: send one message of at most CHUNK bytes to each peer
 * concerned, then receive one from each. Both ends know whether they exchange in a round, and a
 * rank enters the next round when it has all messages of this one, so at most two messages are
 * under way in one direction, which the socket buffers hold: no send blocks for ever. */
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gloo/rendezvous/context.h>
#include <gloo/transport/buffer.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>

#include "trainer/comm_gloo_store.h"

namespace
{

constexpr size_t CHUNK = 32 * 1024;
constexpr size_t SMALL =
    4096; /* sums up to here take one round instead of two: everyone adds up everything */

/* In front of each message: ranks that do not make the same call find out. */
struct Header {
    uint32_t call, bytes;
};

struct Peer {
    std::vector<char> tx, rx; /* a header and a chunk each */
    std::unique_ptr<gloo::transport::Buffer> send, recv;
};

struct comm_gloo {
    struct comm base;
    std::string name;
    std::shared_ptr<gloo::rendezvous::Context> context;
    std::vector<Peer> peers; /* by rank; the own one is empty */
    uint32_t call;           /* collectives so far */
};

comm_gloo *self(struct comm *c)
{
    return reinterpret_cast<comm_gloo *>(c);
}

void send_message(comm_gloo *g, uint32_t to, const char *data, size_t bytes)
{
    Peer &peer = g->peers[to];
    Header header = {g->call, static_cast<uint32_t>(bytes)};
    memcpy(peer.tx.data(), &header, sizeof header);
    if (bytes > 0) {
        memcpy(peer.tx.data() + sizeof header, data, bytes);
    }
    peer.send->send(0, sizeof header + bytes);
    peer.send->waitSend();
}

/* Returns the payload, valid until the next message from there. */
const char *receive_message(comm_gloo *g, uint32_t from, size_t bytes)
{
    Peer &peer = g->peers[from];
    Header header;
    peer.recv->waitRecv();
    memcpy(&header, peer.rx.data(), sizeof header);
    if (header.call != g->call || header.bytes != bytes) {
        throw gloo::IoException("the ranks are out of step: rank " + std::to_string(from) +
                                " sent " + std::to_string(header.bytes) + " bytes of call " +
                                std::to_string(header.call) + ", expected " +
                                std::to_string(bytes) + " of call " + std::to_string(g->call));
    }
    return peer.rx.data() + sizeof header;
}

/* The other ranks, beginning with the next: not everyone goes for the same one first. */
template <typename F> void each_peer(comm_gloo *g, F body)
{
    for (uint32_t i = 1; i < g->base.size; i++) {
        body((g->base.rank + i) % g->base.size);
    }
}

size_t chunk_at(size_t total, size_t at)
{
    return at < total ? std::min(total - at, CHUNK) : 0;
}

struct Part { /* what one rank sends to and gets from another */
    const char *in;
    size_t send;
    char *out;
    size_t recv;
};

void exchange(comm_gloo *g, const std::vector<Part> &parts)
{
    size_t longest = 0;
    each_peer(g, [&](uint32_t r) {
        longest = std::max(longest, std::max(parts[r].send, parts[r].recv));
    });
    for (size_t at = 0; at < longest; at += CHUNK) {
        each_peer(g, [&](uint32_t r) {
            if (at < std::max(parts[r].send, parts[r].recv)) {
                send_message(g, r, parts[r].in + at, chunk_at(parts[r].send, at));
            }
        });
        each_peer(g, [&](uint32_t r) {
            if (at < std::max(parts[r].send, parts[r].recv)) {
                size_t bytes = chunk_at(parts[r].recv, at);
                const char *data = receive_message(g, r, bytes);
                if (bytes > 0) {
                    memcpy(parts[r].out + at, data, bytes);
                }
            }
        });
    }
}

/* sum = contribution of rank 0 + of rank 1 ...; the own one is `own`, the others' are what they
 * sent last. sum may be own. */
template <typename T> void add_up(comm_gloo *g, const T *own, T *sum, size_t count)
{
    T total[CHUNK / sizeof(T)];
    for (uint32_t r = 0; r < g->base.size; r++) {
        const T *x = r == g->base.rank
                         ? own
                         : reinterpret_cast<const T *>(g->peers[r].rx.data() + sizeof(Header));
        if (r == 0) {
            memcpy(total, x, count * sizeof(T));
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            total[i] += x[i];
        }
    }
    memcpy(sum, total, count * sizeof(T));
}

template <typename T> void sum_small(comm_gloo *g, T *data, size_t count)
{
    size_t bytes = count * sizeof(T);
    each_peer(g, [&](uint32_t r) { send_message(g, r, reinterpret_cast<char *>(data), bytes); });
    each_peer(g, [&](uint32_t r) { receive_message(g, r, bytes); });
    add_up(g, data, data, count);
}

/* One segment for each rank: it adds up its own and hands out the sum. */
template <typename T> void sum_block(comm_gloo *g, T *data, size_t count, size_t segment)
{
    auto start = [&](uint32_t r) { return data + std::min(count, r * segment); };
    auto bytes = [&](uint32_t r) {
        return static_cast<size_t>(start(r + 1) - start(r)) * sizeof(T);
    };
    uint32_t me = g->base.rank;
    each_peer(
        g, [&](uint32_t r) { send_message(g, r, reinterpret_cast<char *>(start(r)), bytes(r)); });
    each_peer(g, [&](uint32_t r) { receive_message(g, r, bytes(me)); });
    add_up(g, start(me), start(me), bytes(me) / sizeof(T));
    each_peer(
        g, [&](uint32_t r) { send_message(g, r, reinterpret_cast<char *>(start(me)), bytes(me)); });
    each_peer(g, [&](uint32_t r) {
        const char *sum = receive_message(g, r, bytes(r));
        memcpy(start(r), sum, bytes(r));
    });
}

/* Each rank's segment to it, a piece of all segments at a time. Who gets nothing more sends on: a
 * rank that still gets something is in the same round as its senders, or before them. */
template <typename T> void scatter_sums(comm_gloo *g, T *data, const size_t *first)
{
    constexpr size_t PIECE = CHUNK / sizeof(T);
    auto piece = [&](uint32_t r, size_t at) {
        size_t n = first[r + 1] - first[r];
        return at < n ? std::min(PIECE, n - at) : 0;
    };
    size_t longest = 0;
    for (uint32_t r = 0; r < g->base.size; r++) {
        longest = std::max(longest, first[r + 1] - first[r]);
    }
    T *own = data + first[g->base.rank];
    for (size_t at = 0; at < longest; at += PIECE) {
        size_t n = piece(g->base.rank, at);
        each_peer(g, [&](uint32_t r) {
            const T *part = data + first[r] + at;
            if (piece(r, at) > 0) {
                send_message(g, r, reinterpret_cast<const char *>(part), piece(r, at) * sizeof(T));
            }
        });
        if (n > 0) {
            each_peer(g, [&](uint32_t r) { receive_message(g, r, n * sizeof(T)); });
            add_up(g, own + at, own + at, n);
        }
    }
}

/* Runs one collective; the place where exceptions end. */
template <typename F> int guard(struct comm *c, const char *what, struct err *err, F body)
{
    try {
        self(c)->call++;
        body();
        return 0;
    } catch (const std::exception &e) {
        return err_set(
            err, ERR_COMM,
            "%s in group %s (rank %u of %u): %s (a peer rank ended or hangs: see its log)", what,
            self(c)->name.c_str(), c->rank, c->size, e.what());
    }
}

template <typename T> int all_reduce(struct comm *c, T *data, size_t count, struct err *err)
{
    return guard(c, "all-reduce", err, [&] {
        size_t block = c->size * (CHUNK / sizeof(T));
        for (size_t at = 0; at < count; at += block) {
            size_t n = std::min(block, count - at);
            if (n * sizeof(T) <= SMALL) {
                sum_small(self(c), data + at, n);
            } else {
                sum_block(self(c), data + at, n, (n + c->size - 1) / c->size);
            }
        }
    });
}

int all_reduce_f32(struct comm *c, float *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, err);
}

int all_reduce_f64(struct comm *c, double *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, err);
}

int all_reduce_u64(struct comm *c, uint64_t *data, size_t count, struct err *err)
{
    return all_reduce(c, data, count, err);
}

int reduce_scatter_f32(struct comm *c, float *data, const size_t *first, struct err *err)
{
    return guard(c, "reduce-scatter", err, [&] { scatter_sums(self(c), data, first); });
}

int all_gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    return guard(c, "all-gather", err, [&] {
        std::vector<Part> parts(c->size);
        for (uint32_t r = 0; r < c->size; r++) {
            parts[r] = {static_cast<const char *>(in), bytes, static_cast<char *>(out) + r * bytes,
                        bytes};
        }
        if (bytes > 0) {
            memmove(parts[c->rank].out, in, bytes);
        }
        exchange(self(c), parts);
    });
}

int all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                 const size_t *recv_bytes, struct err *err)
{
    return guard(c, "all-to-all", err, [&] {
        std::vector<Part> parts(c->size);
        const char *from = static_cast<const char *>(in);
        char *to = static_cast<char *>(out);
        for (uint32_t r = 0; r < c->size; r++) {
            parts[r] = {from, send_bytes[r], to, recv_bytes[r]};
            from += send_bytes[r];
            to += recv_bytes[r];
        }
        const Part &own = parts[c->rank];
        if (own.send != own.recv) {
            throw gloo::IoException("this rank sends itself " + std::to_string(own.send) +
                                    " bytes and expects " + std::to_string(own.recv));
        }
        if (own.send > 0) {
            memmove(own.out, own.in, own.send);
        }
        exchange(self(c), parts);
    });
}

int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    return guard(c, "broadcast", err, [&] {
        std::vector<Part> parts(c->size);
        char *p = static_cast<char *>(data);
        for (uint32_t r = 0; r < c->size; r++) {
            parts[r] = {p, c->rank == root ? bytes : 0, p, r == root ? bytes : 0};
        }
        exchange(self(c), parts);
    });
}

int barrier(struct comm *c, struct err *err)
{
    return guard(c, "barrier", err, [&] {
        each_peer(self(c), [&](uint32_t r) { send_message(self(c), r, nullptr, 0); });
        each_peer(self(c), [&](uint32_t r) { receive_message(self(c), r, 0); });
    });
}

void destroy(struct comm *c)
{
    for (Peer &peer : self(c)->peers) { /* before the connections that they are bound to */
        peer.send.reset();
        peer.recv.reset();
    }
    delete self(c);
}

const struct comm_ops ops = {
    "gloo",     all_reduce_f32, all_reduce_f64, all_reduce_u64, reduce_scatter_f32,
    all_gather, all_to_all_v,   broadcast,      barrier,        nullptr,
    nullptr,    destroy,
};

/* Buffers first, so that a message that is here already finds its place; then the calling thread
 * takes the socket over. */
void bind_peers(comm_gloo *g)
{
    g->peers.resize(g->base.size);
    each_peer(g, [&](uint32_t r) {
        Peer &peer = g->peers[r];
        peer.tx.resize(sizeof(Header) + CHUNK);
        peer.rx.resize(sizeof(Header) + CHUNK);
        auto &pair = g->context->getPair(static_cast<int>(r));
        peer.recv = pair->createRecvBuffer(0, peer.rx.data(), peer.rx.size());
        peer.send = pair->createSendBuffer(0, peer.tx.data(), peer.tx.size());
        pair->setSync(true, false);
    });
}

} // namespace

extern "C" int comm_gloo_create(struct comm **c, const struct comm_store *store, const char *prefix,
                                uint32_t rank, uint32_t size, const char *address,
                                int64_t timeout_ms, struct err *err)
{
    MeetingStore meeting(store, prefix, timeout_ms);
    comm_gloo *g = new comm_gloo{};
    g->base.ops = &ops;
    g->base.rank = rank;
    g->base.size = size;
    g->name = prefix;
    try {
        gloo::transport::tcp::attr attr(address);
        std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attr);
        g->context = std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank),
                                                                 static_cast<int>(size));
        g->context->setTimeout(std::chrono::milliseconds(timeout_ms));
        g->context->connectFullMesh(meeting, device);
        bind_peers(g);
        *c = &g->base;
        return 0;
    } catch (const std::exception &e) {
        destroy(&g->base);
        int code = meeting.error_.code == ERR_STALE ? ERR_STALE : ERR_COMM;
        return err_set(err, code,
                       "rank %u of %u could not join group %s at %s: %s (did every rank start?)",
                       rank, size, prefix, address, e.what());
    }
}
