/* Gloo behind comm.h: the one C++ file. Nothing but translation in here: a Store that asks struct
 * comm_store, one gloo context a group, exceptions into ERR_COMM.
 *
 * Reproducibility: gloo's ring all-reduce (selected by name below) cuts the buffer into size x k
 * segments whose number depends on the buffer's and the group's size alone; each segment is added
 * once around the ring, from a fixed first rank, and then copied to everyone. The order of
 * additions therefore is a function of (group size, element count, element), never of timing, and
 * every rank ends with the same bits. (gloo/allreduce.cc, function ring.) */
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/alltoallv.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>

extern "C" {
#include "trainer/comm.h"
}

namespace
{

class MeetingStore : public gloo::rendezvous::Store
{
  public:
    MeetingStore(const struct comm_store *store, const char *prefix, int64_t timeout_ms)
        : store_(store), prefix_(prefix), timeout_ms_(timeout_ms)
    {
    }

    void set(const std::string &key, const std::vector<char> &data) override
    {
        check(store_->set(store_->ctx, name(key).c_str(), data.data(), data.size(), &error_));
    }

    std::vector<char> get(const std::string &key) override
    {
        fetch(key, timeout_ms_);
        return seen_[key];
    }

    void wait(const std::vector<std::string> &keys) override
    {
        wait(keys, std::chrono::milliseconds(timeout_ms_));
    }

    void wait(const std::vector<std::string> &keys,
              const std::chrono::milliseconds &timeout) override
    {
        for (const std::string &key : keys) {
            fetch(key, timeout.count());
        }
    }

    struct err error_ = {};

  private:
    std::string name(const std::string &key) const
    {
        return prefix_ + "/" + key;
    }

    void check(int rc)
    {
        if (rc != 0) {
            if (error_.code == 0) {
                err_set(&error_, rc, "%s", err_text(rc));
            }
            throw gloo::IoException(error_.text);
        }
    }

    void fetch(const std::string &key, int64_t timeout_ms)
    {
        if (seen_.count(key) != 0) {
            return;
        }
        void *value = nullptr;
        size_t len = 0;
        check(store_->get(store_->ctx, name(key).c_str(), timeout_ms, &value, &len, &error_));
        const char *bytes = static_cast<const char *>(value);
        seen_[key] = std::vector<char>(bytes, bytes + len);
        free(value);
    }

    const struct comm_store *store_;
    std::string prefix_;
    int64_t timeout_ms_;
    std::map<std::string, std::vector<char>> seen_;
};

struct comm_gloo {
    struct comm base;
    std::string name;
    std::shared_ptr<gloo::rendezvous::Context> context;
    uint32_t tag; /* of the next collective: the same on each rank, because they call in the same
                     order */
};

comm_gloo *self(struct comm *c)
{
    return reinterpret_cast<comm_gloo *>(c);
}

/* Runs one collective; the place where exceptions end. */
template <typename F> int guard(struct comm *c, const char *what, struct err *err, F body)
{
    try {
        body();
        return 0;
    } catch (const std::exception &e) {
        return err_set(
            err, ERR_COMM,
            "%s in group %s (rank %u of %u): %s (a peer rank ended or hangs: see its log)", what,
            self(c)->name.c_str(), c->rank, c->size, e.what());
    }
}

template <typename T> void add(void *out, const void *a, const void *b, size_t n)
{
    T *sum = static_cast<T *>(out);
    const T *x = static_cast<const T *>(a);
    const T *y = static_cast<const T *>(b);
    for (size_t i = 0; i < n; i++) {
        sum[i] = x[i] + y[i];
    }
}

template <typename T> int all_reduce(struct comm *c, T *data, size_t count, struct err *err)
{
    if (count == 0) {
        return 0;
    }
    return guard(c, "all-reduce", err, [&] {
        gloo::AllreduceOptions options(self(c)->context);
        options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
        options.setOutput(data, count);
        options.setReduceFunction(add<T>);
        options.setTag(self(c)->tag++);
        gloo::allreduce(options);
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

int all_gather(struct comm *c, const void *in, void *out, size_t bytes, struct err *err)
{
    if (bytes == 0) {
        return 0;
    }
    return guard(c, "all-gather", err, [&] {
        gloo::AllgatherOptions options(self(c)->context);
        options.setInput(static_cast<char *>(const_cast<void *>(in)), bytes);
        options.setOutput(static_cast<char *>(out), bytes * c->size);
        options.setTag(self(c)->tag++);
        gloo::allgather(options);
    });
}

int all_to_all_v(struct comm *c, const void *in, const size_t *send_bytes, void *out,
                 const size_t *recv_bytes, struct err *err)
{
    return guard(c, "all-to-all", err, [&] {
        static char nothing; /* gloo wants an address even for no bytes */
        char *from = in == nullptr ? &nothing : static_cast<char *>(const_cast<void *>(in));
        char *to = out == nullptr ? &nothing : static_cast<char *>(out);
        gloo::AlltoallvOptions options(self(c)->context);
        options.setInput(from, std::vector<int64_t>(send_bytes, send_bytes + c->size));
        options.setOutput(to, std::vector<int64_t>(recv_bytes, recv_bytes + c->size));
        options.setTag(self(c)->tag++);
        gloo::alltoallv(options);
    });
}

int broadcast(struct comm *c, void *data, size_t bytes, uint32_t root, struct err *err)
{
    if (bytes == 0) {
        return 0;
    }
    return guard(c, "broadcast", err, [&] {
        gloo::BroadcastOptions options(self(c)->context);
        options.setOutput(static_cast<char *>(data), bytes);
        options.setRoot(static_cast<int>(root));
        options.setTag(self(c)->tag++);
        gloo::broadcast(options);
    });
}

int barrier(struct comm *c, struct err *err)
{
    return guard(c, "barrier", err, [&] {
        gloo::BarrierOptions options(self(c)->context);
        options.setTag(self(c)->tag++);
        options.setTimeout(self(c)->context->getTimeout());
        gloo::barrier(options);
    });
}

void destroy(struct comm *c)
{
    delete self(c);
}

const struct comm_ops ops = {
    "gloo",       all_reduce_f32, all_reduce_f64, all_reduce_u64, all_gather,
    all_to_all_v, broadcast,      barrier,        destroy,
};

} // namespace

extern "C" int comm_gloo_create(struct comm **c, const struct comm_store *store, const char *prefix,
                                uint32_t rank, uint32_t size, const char *address,
                                int64_t timeout_ms, struct err *err)
{
    MeetingStore meeting(store, prefix, timeout_ms);
    try {
        gloo::transport::tcp::attr attr(address);
        std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attr);
        auto context = std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank),
                                                                   static_cast<int>(size));
        context->setTimeout(std::chrono::milliseconds(timeout_ms));
        context->connectFullMesh(meeting, device);
        comm_gloo *g = new comm_gloo{};
        g->base.ops = &ops;
        g->base.rank = rank;
        g->base.size = size;
        g->name = prefix;
        g->context = context;
        *c = &g->base;
        return 0;
    } catch (const std::exception &e) {
        int code = meeting.error_.code == ERR_STALE ? ERR_STALE : ERR_COMM;
        return err_set(err, code,
                       "rank %u of %u could not join group %s at %s: %s (did every rank start?)",
                       rank, size, prefix, address, e.what());
    }
}
