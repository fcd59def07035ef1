/* The CUDA back end is lib/dsop_cuda.so beside the program's bin/, or in DS_PLUGIN_DIR. It stays
 * loaded: a GPU's driver does not like to be unloaded. */
#include "trainer/backend.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/mem.h"
#include "trainer/op_plugin.h"

#define PLUGIN     "dsop_cuda.so"
#define PATH_BYTES 4096

/* Where the plug-in should be. The caller frees it. */
static char *plugin_path(void)
{
    const char *folder = getenv("DS_PLUGIN_DIR");
    if (folder != NULL && folder[0] != 0) {
        return mem_printf("%s/" PLUGIN, folder);
    }
    char self[PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    for (int up = 0; up < 2; up++) { /* the program's name, then bin */
        char *slash = strrchr(self, '/');
        if (slash != NULL) {
            *slash = 0;
        }
    }
    return mem_printf("%s/lib/" PLUGIN, self);
}

/* The loader dies of SIGBUS on a file that was cut short. The table of sections, which a linker
 * puts last, tells. What is no ELF file at all is left to the loader, which says so. */
static bool is_cut_short(const char *path)
{
    Elf64_Ehdr header;
    struct stat info;
    bool cut = false;
    FILE *f = fopen(path, "rb");
    if (f != NULL && fstat(fileno(f), &info) == 0 && fread(&header, sizeof header, 1, f) == 1 &&
        memcmp(header.e_ident, ELFMAG, SELFMAG) == 0) {
        uint64_t end = header.e_shoff + (uint64_t)header.e_shnum * header.e_shentsize;
        cut = end > (uint64_t)info.st_size;
    }
    if (f != NULL) {
        fclose(f);
    }
    return cut;
}

static int load(const struct op_plugin **plugin, const char *path, struct err *err)
{
    if (access(path, R_OK) != 0) {
        return err_set(err, ERR_CONFIG,
                       "no CUDA back end: %s: %s (`make` builds it where nvcc is, DS_PLUGIN_DIR "
                       "names its folder; --backend cpu does without)",
                       path, strerror(errno));
    }
    bool cut = is_cut_short(path);
    void *library = cut ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return err_set(
            err, ERR_CONFIG,
            "cannot load the CUDA back end: %s%s (libraries of the CUDA toolkit are found "
            "by LD_LIBRARY_PATH; --backend cpu does without)",
            cut ? path : dlerror(), cut ? ": the file was cut short" : "");
    }
    op_plugin_fn *entry;
    *(void **)&entry = dlsym(library, OP_PLUGIN_SYMBOL);
    const struct op_plugin *p = entry != NULL ? entry() : NULL;
    if (p == NULL || p->abi != OP_PLUGIN_ABI || p->table_bytes != sizeof(struct op_table)) {
        char why[80] = "it is no back end: has no " OP_PLUGIN_SYMBOL;
        if (p != NULL) {
            snprintf(why, sizeof why, "its interface is %u.%u, this program's %d.%zu", p->abi,
                     p->abi == OP_PLUGIN_ABI ? p->table_bytes : 0, OP_PLUGIN_ABI,
                     p->abi == OP_PLUGIN_ABI ? sizeof(struct op_table) : 0);
        }
        return err_set(err, ERR_CONFIG,
                       "cannot use the CUDA back end %s: %s (install both from one build; "
                       "--backend cpu does without)",
                       path, why);
    }
    *plugin = p;
    return 0;
}

static int load_for(uint32_t ranks, const struct op_plugin **plugin, struct err *err)
{
    char *path = plugin_path();
    int rc = load(plugin, path, err);
    free(path);
    if (rc == 0 && ranks > 1) {
        rc = err_set(err, ERR_CONFIG,
                     "the CUDA back end runs one rank, the job has %u: it has no communication "
                     "between GPUs yet (--ranks 1, or --backend cpu)",
                     ranks);
    }
    return rc;
}

int backend_check(enum backend kind, uint32_t ranks, struct err *err)
{
    const struct op_plugin *plugin = NULL;
    if (kind == BACKEND_CPU) {
        return 0;
    }
    TRY(load_for(ranks, &plugin, err));
    return plugin->check(ranks, err);
}

int backend_open(enum backend kind, struct backend_place place, const struct op_table **op,
                 struct err *err)
{
    const struct op_plugin *plugin = NULL;
    if (kind == BACKEND_CPU) {
        *op = op_cpu(place.threads);
        return 0;
    }
    TRY(load_for(place.ranks, &plugin, err));
    return plugin->open(place.local_rank, place.plan, op, err);
}
