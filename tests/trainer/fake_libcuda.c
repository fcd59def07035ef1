/* A stand-in for the NVIDIA driver's libcuda.so.1 that answers as its environment says:
 * FAKE_CUDA_INIT (an error of cuInit), FAKE_CUDA_VERSION, FAKE_CUDA_COUNT, FAKE_CUDA_MAJOR. */
#include <stdio.h>
#include <stdlib.h>

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuDeviceGetCount(int *count);
int cuDeviceGetAttribute(int *value, int attribute, int device);
int cuDeviceGetName(char *name, int bytes, int device);
int cuGetErrorName(int code, const char **name);

static int number(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? atoi(text) : otherwise;
}

int cuInit(unsigned flags)
{
    (void)flags;
    return number("FAKE_CUDA_INIT", 0);
}

int cuDriverGetVersion(int *version)
{
    *version = number("FAKE_CUDA_VERSION", 13000);
    return 0;
}

int cuDeviceGetCount(int *count)
{
    *count = number("FAKE_CUDA_COUNT", 1);
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    *value = attribute == 75 ? number("FAKE_CUDA_MAJOR", 9) : 0;
    return *value < 0 ? 999 : 0;
}

int cuDeviceGetName(char *name, int bytes, int device)
{
    snprintf(name, (size_t)bytes, "Stand-in %d", device);
    return 0;
}

int cuGetErrorName(int code, const char **name)
{
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : code == 999 ? "CUDA_ERROR_UNKNOWN" : NULL;
    return *name == NULL;
}
