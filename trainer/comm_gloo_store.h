/* Gloo's rendezvous over comm_store; C++. */
#ifndef TRAINER_COMM_GLOO_STORE_H
#define TRAINER_COMM_GLOO_STORE_H

#ifdef __cplusplus /* other headers are C: this one says nothing to them */

#include <chrono>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include <gloo/rendezvous/store.h>

extern "C" {
#include "trainer/comm.h"
}

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

#endif
#endif
