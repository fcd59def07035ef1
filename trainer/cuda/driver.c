/* libcuda.so.1 comes with the driver, not with the toolkit, so it is loaded by hand. Its C
 * interface is stable. */
#include "trainer/cuda/driver.h"

#include <dlfcn.h>
#include <stddef.h>

#define LIBRARY         "libcuda.so.1"
#define VERSION_LEAST   13000 /* CUDA 13.0, in the driver's count */
#define DRIVER_LEAST    "580"
#define CAPABILITY      9 /* 9.0: sm_90a code runs on no other */
#define ATTRIBUTE_MAJOR 75
#define ATTRIBUTE_MINOR 76
#define WAY_OUT         "--backend cpu does without"

struct driver {
    int (*init)(unsigned flags);
    int (*version)(int *version);
    int (*count)(int *count);
    int (*attribute)(int *value, int attribute, int device);
    int (*name)(char *name, int bytes, int device);
    int (*error_name)(int code, const char **name);
};

static int load(struct driver *d, struct err *err)
{
    const struct {
        const char *name;
        void **place;
    } functions[] = {
        {"cuInit", (void **)&d->init},
        {"cuDriverGetVersion", (void **)&d->version},
        {"cuDeviceGetCount", (void **)&d->count},
        {"cuDeviceGetAttribute", (void **)&d->attribute},
        {"cuDeviceGetName", (void **)&d->name},
        {"cuGetErrorName", (void **)&d->error_name},
    };
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return err_set(err, ERR_CONFIG,
                       "no NVIDIA driver: %s (install driver " DRIVER_LEAST
                       " or later; in a container, give it the GPUs; " WAY_OUT ")",
                       dlerror());
    }
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        *functions[i].place = dlsym(library, functions[i].name);
        if (*functions[i].place == NULL) {
            return err_set(err, ERR_CONFIG,
                           LIBRARY
                           " has no %s: it is not an NVIDIA driver's (install driver " DRIVER_LEAST
                           " or later; " WAY_OUT ")",
                           functions[i].name);
        }
    }
    return 0;
}

static const char *error_name(const struct driver *d, int code)
{
    const char *name = NULL;
    return d->error_name(code, &name) == 0 && name != NULL ? name : "unknown error";
}

static int check_version(const struct driver *d, struct err *err)
{
    int version = 0;
    int rc = d->version(&version);
    if (rc != 0 || version < VERSION_LEAST) {
        return err_set(
            err, ERR_CONFIG,
            "the NVIDIA driver is for CUDA %d.%d, this needs %d.%d (install driver " DRIVER_LEAST
            " or later; " WAY_OUT ")",
            version / 1000, version % 1000 / 10, VERSION_LEAST / 1000, VERSION_LEAST % 1000 / 10);
    }
    return 0;
}

static int check_device(const struct driver *d, int device, struct err *err)
{
    char name[128] = "?";
    int major = 0, minor = 0;
    int rc = d->attribute(&major, ATTRIBUTE_MAJOR, device);
    rc = rc == 0 ? d->attribute(&minor, ATTRIBUTE_MINOR, device) : rc;
    if (rc != 0) {
        return err_set(err, ERR_CONFIG, "GPU %d does not answer: %s (see nvidia-smi; " WAY_OUT ")",
                       device, error_name(d, rc));
    }
    if (major != CAPABILITY || minor != 0) {
        (void)d->name(name, sizeof name, device);
        return err_set(err, ERR_CONFIG,
                       "GPU %d, a %s, has compute capability %d.%d, the CUDA back end is built for "
                       "%d.0: H100, H200, H800 (" WAY_OUT ")",
                       device, name, major, minor, CAPABILITY);
    }
    return 0;
}

int driver_check(uint32_t count, struct err *err)
{
    struct driver d = {0};
    int there = 0;
    TRY(load(&d, err));
    int rc = d.init(0);
    if (rc == 0) {
        rc = d.count(&there);
    }
    if (rc != 0) {
        TRY(check_version(&d, err));
        return err_set(err, ERR_CONFIG,
                       "the NVIDIA driver gives no GPU: %s (see nvidia-smi and "
                       "CUDA_VISIBLE_DEVICES; " WAY_OUT ")",
                       error_name(&d, rc));
    }
    TRY(check_version(&d, err));
    if ((uint32_t)there < count) {
        return err_set(err, ERR_CONFIG,
                       "%u ranks on this machine want a GPU each, there are %d (see nvidia-smi and "
                       "CUDA_VISIBLE_DEVICES; " WAY_OUT ")",
                       count, there);
    }
    for (uint32_t i = 0; i < count; i++) {
        TRY(check_device(&d, (int)i, err));
    }
    return 0;
}
