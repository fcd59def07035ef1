#include "trainer/spec_file.h"

#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/file.h"

#define SPEC_BYTES_MAX  (1u << 20)
#define MODEL_BYTES_MAX (1u << 20)

static int load_model(const struct jobspec *spec, struct model_config *config, const char *path,
                      struct err *err)
{
    struct buf text = {0};
    int rc = file_read(spec->train.model, MODEL_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = jobspec_model(spec, buf_cstr(&text), text.len, path, config, err);
    }
    buf_fini(&text);
    return rc;
}

int spec_file_load(struct jobspec *spec, struct model_config *config, const char *path,
                   const char *const *set, size_t set_count, struct err *err)
{
    char absolute[PATH_MAX];
    struct buf text = {0};
    *spec = (struct jobspec){0};
    if (realpath(path, absolute) == NULL) {
        return err_set_errno(err, "cannot open the job file %s", path);
    }
    int rc = file_read(absolute, SPEC_BYTES_MAX, &text, err);
    if (rc == 0) {
        rc = jobspec_parse(spec, buf_cstr(&text), text.len, path, dirname(absolute), set, set_count,
                           err);
    }
    buf_fini(&text);
    if (rc == 0 && !spec->has_train) {
        rc = err_set(err, ERR_CONFIG, "%s: there is no 'train' section: dstrain runs no commands",
                     path);
    }
    if (rc == 0 && spec->train.init_job != 0) {
        rc = err_set(err, ERR_CONFIG,
                     "%s: train.init_from names job %" PRIu64 " of a coordinator, which finds its "
                     "folder on submit (without one name the folder)",
                     path, spec->train.init_job);
    }
    if (rc == 0) {
        rc = load_model(spec, config, path, err);
    }
    if (rc != 0) {
        jobspec_fini(spec);
    }
    return rc;
}
