/* Point-to-point messages over Gloo, for pipelines. Connections are in their normal mode: the
 * device thread reads and writes the sockets while this rank computes. A message that is sent is
 * copied and goes when it can; the next message of a channel has a buffer waiting for it as soon as
 * the one before was taken. */
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gloo/rendezvous/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>

#include "trainer/comm_gloo_store.h"

namespace
{

constexpr int FLUSH_MS = 2000;

/* In front of each message: ranks that are out of step find out. */
struct Header {
    uint64_t number, bytes;
};

struct Message {
    std::vector<char> bytes;
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
};

struct Outbox {
    std::deque<Message> under_way;
    uint64_t number = 0;
};

struct Inbox {
    Message next;
    bool expected = false;
    uint64_t number = 0;
};

using Way = std::pair<uint32_t, uint32_t>; /* rank, channel */

struct peers {
    struct comm base;
    std::string name;
    std::shared_ptr<gloo::rendezvous::Context> context;
    std::map<Way, Outbox> out;
    std::map<Way, Inbox> in;
};

peers *self(struct comm *c)
{
    return reinterpret_cast<peers *>(c);
}

Message message_of(peers *p, size_t bytes)
{
    Message m;
    m.bytes.resize(sizeof(Header) + bytes);
    m.buffer = p->context->createUnboundBuffer(m.bytes.data(), m.bytes.size());
    return m;
}

/* No schedule has more messages of a channel under way than that, so waiting for the oldest to
 * leave never waits for something that depends on this rank. */
size_t most_under_way(const peers *p)
{
    return 2 * static_cast<size_t>(p->base.size) + 2;
}

void send_message(peers *p, uint32_t to, uint32_t channel, const void *data, size_t bytes)
{
    Outbox &box = p->out[{to, channel}];
    Message m;
    if (box.under_way.size() >= most_under_way(p)) {
        m = std::move(box.under_way.front());
        box.under_way.pop_front();
        m.buffer->waitSend();
    }
    if (m.bytes.size() != sizeof(Header) + bytes) {
        m = message_of(p, bytes);
    }
    const Header header = {box.number++, bytes};
    memcpy(m.bytes.data(), &header, sizeof header);
    if (bytes > 0) {
        memcpy(m.bytes.data() + sizeof header, data, bytes);
    }
    m.buffer->send(static_cast<int>(to), channel);
    box.under_way.push_back(std::move(m));
}

void expect(peers *p, Inbox &box, uint32_t from, uint32_t channel, size_t bytes)
{
    if (box.next.bytes.size() != sizeof(Header) + bytes) {
        box.next = message_of(p, bytes);
    }
    box.next.buffer->recv(static_cast<int>(from), channel);
    box.expected = true;
}

void receive_message(peers *p, uint32_t from, uint32_t channel, void *data, size_t bytes)
{
    Inbox &box = p->in[{from, channel}];
    if (!box.expected) {
        expect(p, box, from, channel, bytes);
    }
    box.next.buffer->waitRecv();
    box.expected = false;
    Header header;
    memcpy(&header, box.next.bytes.data(), sizeof header);
    if (header.number != box.number || header.bytes != bytes ||
        box.next.bytes.size() != sizeof header + bytes) {
        throw gloo::IoException("the ranks are out of step: rank " + std::to_string(from) +
                                " sent message " + std::to_string(header.number) + " of " +
                                std::to_string(header.bytes) + " bytes on channel " +
                                std::to_string(channel) + ", expected " +
                                std::to_string(box.number) + " of " + std::to_string(bytes));
    }
    box.number++;
    if (bytes > 0) {
        memcpy(data, box.next.bytes.data() + sizeof header, bytes);
    }
    try {
        expect(p, box, from, channel, bytes);
    } catch (const std::exception &) { /* the peer is gone: this was its last message, or the next
                                          call will say so */
    }
}

template <typename F>
int guard(struct comm *c, const char *what, uint32_t peer, struct err *err, F body)
{
    try {
        body();
        return 0;
    } catch (const std::exception &e) {
        return err_set(
            err, ERR_COMM,
            "%s rank %u in group %s (rank %u of %u): %s (a peer rank ended or hangs: see its log)",
            what, peer, self(c)->name.c_str(), c->rank, c->size, e.what());
    }
}

int send(struct comm *c, uint32_t to, uint32_t channel, const void *data, size_t bytes,
         struct err *err)
{
    return guard(c, "sending to", to, err,
                 [&] { send_message(self(c), to, channel, data, bytes); });
}

int recv(struct comm *c, uint32_t from, uint32_t channel, void *data, size_t bytes, struct err *err)
{
    return guard(c, "receiving from", from, err,
                 [&] { receive_message(self(c), from, channel, data, bytes); });
}

/* Gives what was sent a moment to leave, should the peer still be there. */
void flush(peers *p)
{
    try {
        for (auto &box : p->out) {
            for (Message &m : box.second.under_way) {
                m.buffer->waitSend(std::chrono::milliseconds(FLUSH_MS));
            }
        }
    } catch (const std::exception &) { /* nobody waits for it any more */
    }
}

void destroy(struct comm *c)
{
    peers *p = self(c);
    if (p->context != nullptr) {
        flush(p);
        p->context->closeConnections();
    }
    p->out.clear();
    p->in.clear();
    delete p;
}

const struct comm_ops ops = {
    "gloo",  nullptr, nullptr, nullptr, nullptr, nullptr,
    nullptr, nullptr, nullptr, send,    recv,    destroy,
};

} // namespace

extern "C" int comm_gloo_peers_create(struct comm **c, const struct comm_store *store,
                                      const char *prefix, uint32_t rank, uint32_t size,
                                      const char *address, int64_t timeout_ms, struct err *err)
{
    MeetingStore meeting(store, prefix, timeout_ms);
    peers *p = new peers{};
    p->base.ops = &ops;
    p->base.rank = rank;
    p->base.size = size;
    p->name = prefix;
    try {
        gloo::transport::tcp::attr attr(address);
        std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attr);
        p->context = std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank),
                                                                 static_cast<int>(size));
        p->context->setTimeout(std::chrono::milliseconds(timeout_ms));
        p->context->connectFullMesh(meeting, device);
        *c = &p->base;
        return 0;
    } catch (const std::exception &e) {
        destroy(&p->base);
        int code = meeting.error_.code == ERR_STALE ? ERR_STALE : ERR_COMM;
        return err_set(err, code,
                       "rank %u of %u could not join group %s at %s: %s (did every rank start?)",
                       rank, size, prefix, address, e.what());
    }
}
