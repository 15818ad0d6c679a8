# How this project compiles: one place for language, warnings, hardening and sanitizers. Every target goes through
# droppable_target(), so nothing is set globally and a project that embeds this one is left alone.

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

# -Werror is not here: presets set CMAKE_COMPILE_WARNING_AS_ERROR.
add_library(droppable-warnings INTERFACE)
target_compile_options(
    droppable-warnings
    INTERFACE
        -Wall
        -Wextra
        -Wshadow
        -Wstrict-prototypes
        -Wmissing-prototypes
        -Wold-style-definition
        -Wpointer-arith
        -Wwrite-strings
        -Wundef
        -Wvla
        -Wformat=2
        -Wimplicit-fallthrough
        $<$<C_COMPILER_ID:GNU>:-Wlogical-op>
)

add_library(droppable-options INTERFACE)
target_compile_features(droppable-options INTERFACE c_std_11)
# _GNU_SOURCE with an empty value, so that a file which defines it again is no redefinition.
target_compile_definitions(droppable-options INTERFACE _GNU_SOURCE= DROPPABLE_VERSION="${PROJECT_VERSION}")
# No strict aliasing: packets and shared pages are read through structs.
target_compile_options(droppable-options INTERFACE -fno-strict-aliasing -fstack-protector-strong)
target_link_options(droppable-options INTERFACE -Wl,-z,relro,-z,now)

if(DROPPABLE_SANITIZE)
    target_compile_options(
        droppable-options INTERFACE -fsanitize=${DROPPABLE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer
    )
    target_link_options(droppable-options INTERFACE -fsanitize=${DROPPABLE_SANITIZE})
else()
    # Not with sanitizers: they have wrappers of their own for what this checks.
    target_compile_options(
        droppable-options INTERFACE $<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>
    )
endif()

if(DROPPABLE_COVERAGE)
    # Atomic: the daemon's threads count in the same counters.
    target_compile_options(droppable-options INTERFACE --coverage -fprofile-update=atomic)
    target_link_options(droppable-options INTERFACE --coverage)
endif()

if(DROPPABLE_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "DROPPABLE_FUZZ needs clang, this is ${CMAKE_C_COMPILER_ID}: configure with --preset fuzz, "
                            "or -DCMAKE_C_COMPILER=clang")
    endif()
    target_compile_options(droppable-options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# What every target of this project has in common: GNU C11, warnings, position independence.
function(droppable_target target)
    set_target_properties(
        ${target} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS ON POSITION_INDEPENDENT_CODE ON
    )
    target_link_libraries(${target} PRIVATE droppable-warnings droppable-options)
endfunction()
