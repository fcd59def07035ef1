#ifndef LIB_VERSION_H
#define LIB_VERSION_H

#define DS_VERSION "0.1.0"

#endif
